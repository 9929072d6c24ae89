"""llama.cpp's own quantiser, for a process of its own.

python -m atlas.export.gguf.quantiser SOURCE TARGET FILE_TYPE
"""

import os
import sys

from cyllama.llama import llama_cpp


def main() -> None:
    """Writes a GGUF file anew, its matrices in the types of a file type (a number)."""
    source, target, file_type = sys.argv[1:]
    llama_cpp.disable_logging()
    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype = int(file_type)
    params.nthread = os.cpu_count() or 1
    llama_cpp.model_quantize(source, target, params)


if __name__ == "__main__":
    main()
