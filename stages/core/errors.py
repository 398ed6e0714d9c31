"""One class per wire code.

Every error that may reach a user carries the code that programs match on, whether the same request may
succeed later, and the exit status of a command that ends with it. The message is one line and names the way out.
"""

from typing import ClassVar

MESSAGE_CHARS = 1000
"""Characters of a message, at most: it is one line for a person, and pipes have limits."""


class TriptychError(Exception):
    """Base of all errors that have a wire code; anything else that escapes is a defect of Triptych."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1
    retry_after_s: float | None = None
    """Seconds after which a retryable request is worth trying again; None where that is not known."""

    @classmethod
    def unforeseen(cls, error: Exception) -> "TriptychError":
        """The error that stands for an exception nobody foresaw: a defect of Triptych, to be reported."""
        return cls(f"{type(error).__name__}: {str(error)[: MESSAGE_CHARS // 2]} (please report it)")

    @property
    def message(self) -> str:
        """The one line shown to the user, cut where it is too long for one."""
        return " ".join(str(self).split())[:MESSAGE_CHARS]


class BadRequest(TriptychError):
    """The request itself is wrong. Raised by the hub before a job is made; the client must change the request."""

    code = "bad_request"
    exit_status = 2


class Conflict(BadRequest):
    """The owner has another prompt of this id; the client must choose another id, or forget the prompt."""

    code = "conflict"


class NotFound(TriptychError):
    """The id that is named is unknown, finished or forgotten; nobody needs to recover."""

    code = "not_found"


class Overloaded(TriptychError):
    """The queue is full. The client may send the same request again later."""

    code = "overloaded"
    retryable = True


class DeadlineInfeasible(TriptychError):
    """The deadline cannot be met. The client may send the request with the later one that the message names."""

    code = "deadline_infeasible"
    retryable = True


class ShuttingDown(TriptychError):
    """The server is stopping and takes (or finishes) no more jobs. Another server, or a later one, may."""

    code = "shutting_down"
    retryable = True


class Cancelled(TriptychError):
    """The client asked for it."""

    code = "cancelled"


class StageLost(TriptychError):
    """The job's stage died under it twice. The server has recovered; the prompt is refused to protect the others."""

    code = "stage_lost"


class StageFault(TriptychError):
    """An exception inside a stage. The stage survives and serves the next job."""

    code = "stage_fault"
    retryable = True


class BadOutput(TriptychError):
    """A stage produced NaN or Inf. Never shown as an image."""

    code = "bad_output"


class StaleSlot(TriptychError):
    """A slot reference of an older generation, or of another owner. The holder of the reference must drop it."""

    code = "stale_slot"
    retryable = True


class TornSlot(TriptychError):
    """A slot whose bytes do not match its checksum. The hub replays the job from its last good input."""

    code = "torn_slot"
    retryable = True


class ConfigError(TriptychError):
    """The configuration is wrong; the operator must change the named key."""

    code = "bad_config"
    exit_status = 2


class ModelError(TriptychError):
    """The model folder cannot be run; the operator must name or export another."""

    code = "bad_model"
    exit_status = 2


class StartFailed(TriptychError):
    """The pipeline could not start, or a stage could not be kept alive; the operator must read the cause."""

    code = "start_failed"
    exit_status = 3


class NoAnswer(TriptychError):
    """Nothing answers at the address; the user must start a server there or name another."""

    code = "no_answer"
    retryable = True
    exit_status = 3


def _all(base: type[TriptychError]) -> dict[str, type[TriptychError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _all(child)
    return found


def by_code(code: str) -> type[TriptychError]:
    """The class of a wire code; `TriptychError` for a code this version does not know."""
    return _all(TriptychError).get(code, TriptychError)
