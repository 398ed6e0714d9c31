"""What this machine's CPU can do, for the tests that need it."""

import openvino as ov
import pytest

needs_bf16 = pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this CPU does not compute in bf16"
)
