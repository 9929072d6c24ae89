"""Atlas: from raw text to a small language model that llama.cpp runs."""

import os

# Threads of libgomp (in PyTorch, llama.cpp, sentencepiece) spin while they wait. Beside other work
# that costs several times the speed, so they soon give up their core. libgomp reads this only
# when it is loaded, and every command and stage imports this package first.
SPIN_COUNT = "20000"
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)

# PyTorch asks the system for pages of 2 MB instead of 4 KB for its large tensors, which saves 5 to
# 14 percent of a step of a model of 135M weights. It reads this at its first large tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
