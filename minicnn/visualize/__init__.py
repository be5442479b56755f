"""Pictures of networks and their training: figures (PNG), graph (SVG), report (one HTML page); contact sheets of data sets."""
