import pytest
import torch

from tests.parity.export import Workshop
from tests.parity.gallery import Gallery

# Warnings are errors here; these are the peers' own, among themselves.
FILTERS = (
    # optimum-intel exports by tracing, and says of every `if` in the models that it is traced one way.
    "ignore::torch.jit.TracerWarning",
    "ignore:.torch.jit.trace:DeprecationWarning:torch.jit._trace",
    # diffusers makes numpy arrays of torch tensors, which do not know numpy 2's `copy` yet.
    r"ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:diffusers\.schedulers\..*",
    # transformers reads vocab.json and merges.txt in a way that tokenizers advises against.
    r"ignore:Deprecated in 0.9.0. BPE:DeprecationWarning:transformers\.models\.clip\.tokenization_clip",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Model folders, made when they are first asked for."""
    return Workshop(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def gallery(workshop: Workshop) -> Gallery:
    """Pictures, made when they are first looked at."""
    torch.set_num_threads(1)  # tiny layers: a second thread would only wait, for long if the machine is busy
    return Gallery(workshop)
