"""The backend: NumPy or CuPy arrays, a thread pool, CUDA kernels, and random numbers from one seed."""
