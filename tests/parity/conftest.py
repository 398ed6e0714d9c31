import pytest
import torch

from tests.parity.export import Workshop
from tests.parity.gallery import Gallery


def pytest_configure(config: pytest.Config) -> None:
    pass


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def gallery(workshop: Workshop) -> Gallery:
    torch.set_num_threads(1)  # tiny layers: a second thread would only wait, for long if the machine is busy
    return Gallery(workshop)
