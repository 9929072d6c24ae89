"""llama.cpp's own quantiser, for a process of its own.

    python -m atlas.export.gguf.quantiser SOURCE TARGET FILE_TYPE

FILE_TYPE is llama.cpp's number of a format.
"""

import sys

from cyllama.llama import llama_cpp

from atlas.pipeline.processes import threads


def main() -> None:
    """Writes a GGUF file anew, its matrices in the types of another format."""
    source, target, file_type = sys.argv[1:]
    llama_cpp.disable_logging()
    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype = int(file_type)
    params.nthread = threads()
    llama_cpp.model_quantize(source, target, params)


if __name__ == "__main__":
    main()
