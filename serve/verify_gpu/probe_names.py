"""Run by the container's Python: prints, as JSON, the names in TensorRT-LLM that this project leans on.

Arguments: the model class's file and name. That file is executed as trtllm-build does it.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path


def main() -> None:
    import tensorrt_llm
    from tensorrt_llm.functional import gpt_attention
    from tensorrt_llm.layers import Attention
    from tensorrt_llm.models import MODEL_MAP
    from tensorrt_llm.models.convert_utils import weight_only_quantize_dict
    from tensorrt_llm.models.modeling_utils import PretrainedConfig

    from build.tensorrt_llm.reference import INT8_NAMES

    file, name = sys.argv[1:]
    SourceFileLoader("models", file).load_module()
    found = {
        "version": tensorrt_llm.__version__,
        "package": str(Path(tensorrt_llm.__file__).parent),
        "gpt_attention": list(inspect.signature(gpt_attention).parameters),
        "Attention": list(inspect.signature(Attention.__init__).parameters),
        "weight_only_quantize_dict": inspect.getsource(weight_only_quantize_dict),
        "PretrainedConfig.from_dict": inspect.getsource(PretrainedConfig.from_dict),
        "int8_names": INT8_NAMES,
        "registered": name in MODEL_MAP,
    }
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
