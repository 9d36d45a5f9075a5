"""The PyTorch runtime: computes every supported checkpoint, on a CPU, a GPU or Apple's mps."""
