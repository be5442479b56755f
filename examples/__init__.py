"""AlexNet and the program that trains it. In an installed copy of minicnn this folder is the package minicnn.examples."""
