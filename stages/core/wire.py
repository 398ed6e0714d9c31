"""Every message between clients and the hub, and the only code that encodes or decodes one.

JSON objects with a `type` field, at most one binary frame after an answer. Requests are strict, answers are open to
what newer servers add.
What the hub and its stages say to each other is in stages.core.pipes.
"""

import json
import re
from typing import Any, Literal, get_args

import msgspec

from stages.core.errors import BadRequest, TriptychError, by_code

Kind = Literal["text", "unet", "vae"]
KINDS: tuple[Kind, ...] = ("text", "unet", "vae")
"""The stages in the order a job passes them."""

Format = Literal["png", "jpeg", "webp"]

Syntax = Literal["plain", "a1111"]
"""How a prompt is read: as it is, or with the weights that AUTOMATIC1111's web UI knows (stages.text.emphasis)."""

PROTOCOL = 1
"""Version of what is said here, as `status` tells it. It changes only with what breaks a client that was written for
the one before: not with a new message, field, code or value that such a client can ignore."""

MAX_REQUEST_BYTES = 1 << 20

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions that decoding raises, whatever the bytes are."""


class _FromClient(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """Base of what clients say. Strict: a field that is not known is a mistake, and would be missed without a word."""


class _FromHub(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of what the hub answers. Clients ignore fields that they do not know: the server may be newer than they."""


# Client to hub.


class Submit(_FromClient, frozen=True, kw_only=True, tag="submit"):
    """Make `n` images of `prompt`. None stands for the model's own default; a seed of None is drawn and reported."""

    id: str
    prompt: str
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    schedule: str | None = None
    guidance_rescale: float = 0.0
    """How far to pull the guided output's contrast back to the unguided one's, 0 to 1."""
    syntax: Syntax = "plain"
    """How both prompts are read."""
    clip_skip: int = 0
    """Last layers of the text encoders that the prompt does not go through."""
    n: int = 1
    priority: int = 0
    """Higher goes before lower, whatever the order."""
    deadline_s: float | None = None
    """Seconds from now within which all images are wanted; refused at once where that cannot be."""
    min_steps: int | None = None
    """With a deadline: how few steps will do rather than a refusal."""
    preview_every: int = 0
    """Send a preview after every so many steps; 0 for none."""
    output_format: Format = "png"
    trace: bool = False
    """Ask for a `traced` message with the stamps of every stage before `done`."""
    owner: str | None = None
    """A name of the client's choice, secret where others share the server: the prompt is not cancelled when the
    connection ends, and `attach` tells of it again. None stands for the connection."""


class Quote(Submit, frozen=True, kw_only=True, tag="quote"):
    """Ask what this prompt would cost and when it would be done, without submitting it."""


class Cancel(_FromClient, frozen=True, kw_only=True, tag="cancel"):
    """Give up the prompt `id` of this client, or of `owner`."""

    id: str
    owner: str | None = None


class Attach(_FromClient, frozen=True, kw_only=True, tag="attach"):
    """Tell this connection of prompt `id` of `owner`, or of all its prompts: what has been made, and what will be."""

    owner: str
    id: str | None = None


class Forget(_FromClient, frozen=True, kw_only=True, tag="forget"):
    """Forget the prompt `id` of `owner`, which has ended: its images are not kept any longer."""

    owner: str
    id: str


class StatusRequest(_FromClient, frozen=True, kw_only=True, tag="status"):
    """Ask for a `status` answer."""


class TraceRequest(_FromClient, frozen=True, kw_only=True, tag="trace"):
    """Ask for a `trace` answer: what the whole pipeline did in the last so many seconds."""

    seconds: float = 30.0


PromptMessage = Submit | Quote | Cancel | Attach | Forget
ClientMessage = PromptMessage | StatusRequest | TraceRequest

# Hub to client.


class Accepted(_FromHub, frozen=True, kw_only=True, tag="accepted"):
    """The prompt is in: `position` prompts wait before it; `eta_s` seconds until done, None before anything ran."""

    id: str
    position: int
    eta_s: float | None


class Quoted(_FromHub, frozen=True, kw_only=True, tag="quoted"):
    """Answer to a quote: `seconds` of work, done in `eta_s` if it were submitted now; None before anything ran."""

    id: str
    seconds: float | None
    eta_s: float | None
    feasible: bool
    """Whether it would be accepted: there is room for it, and its deadline can be met."""


class Attached(_FromHub, frozen=True, kw_only=True, tag="attached"):
    """Answer to an attach: the ids of which this connection is told from now on, and of those that have ended.

    For each in work `accepted` follows, the images that are done, and all further news; for each that has ended, its
    images and `done`, or `failed`.
    """

    in_work: tuple[str, ...]
    ended: tuple[str, ...]


class Forgotten(_FromHub, frozen=True, kw_only=True, tag="forgotten"):
    """Answer to a forget."""

    id: str


class Waiting(_FromHub, frozen=True, kw_only=True, tag="waiting"):
    """Said every second to a client that has heard nothing else: the prompt is still in, with a newer estimate."""

    id: str
    position: int
    eta_s: float | None


class Progress(_FromHub, frozen=True, kw_only=True, tag="progress"):
    """Image `index` of the prompt is in `stage` and has finished `step` of `steps` there."""

    id: str
    stage: Kind
    step: int
    steps: int
    index: int = 0
    eta_s: float | None = None


class Timings(msgspec.Struct, frozen=True):
    """Seconds an image spent waiting, in each stage, and from submit to image."""

    queue_s: float
    text_s: float
    unet_s: float
    vae_s: float
    total_s: float


class Preview(_FromHub, frozen=True, kw_only=True, tag="preview"):
    """A look at image `index` after `step` steps; a JPEG is the binary frame that follows."""

    id: str
    index: int
    step: int


class Image(_FromHub, frozen=True, kw_only=True, tag="image"):
    """Image `index` of the prompt is done; its encoded bytes are the binary frame that follows."""

    id: str
    index: int
    format: Format
    width: int
    height: int
    seed: int
    timings: Timings


class Slice(msgspec.Struct, frozen=True):
    """Image `index` held `slot`, or was worked on in it by process `pid`, from `began_ns` to `ended_ns`."""

    what: Literal["hold", "work", "step"]
    index: int
    stage: str
    """Name of the stage process, as `unet-0`; for a hold the slot's pool."""
    pid: int
    slot: int
    began_ns: int
    ended_ns: int
    step: int = 0


class Traced(_FromHub, frozen=True, kw_only=True, tag="traced"):
    """The answer to `trace`: every stamp of this prompt, in the order of their beginnings."""

    id: str
    slices: tuple[Slice, ...]


class Done(_FromHub, frozen=True, kw_only=True, tag="done"):
    """All images of the prompt have been sent. Terminal."""

    id: str


class Failed(_FromHub, frozen=True, kw_only=True, tag="failed"):
    """The prompt will not be finished; `code` is one of stages.core.errors. Terminal."""

    id: str
    code: str
    message: str
    retryable: bool
    retry_after_s: float | None = None
    """Seconds after which trying again is worth it, where that is known."""

    @classmethod
    def of(cls, id: str, error: TriptychError) -> "Failed":
        """The message of an error."""
        return cls(
            id=id,
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )

    def error(self) -> TriptychError:
        """The error of a message."""
        return by_code(self.code)(self.message)


class QueueStatus(msgspec.Struct, frozen=True):
    """Prompts (counted by image) that wait for their first stage, and how many may."""

    waiting: int
    limit: int


class ArenaStatus(msgspec.Struct, frozen=True):
    """Slots of all pools, and how many of them are free."""

    slots: int
    free: int


class HopStatus(msgspec.Struct, frozen=True):
    """Microseconds from one stage putting a job down to the next, idle stage taking it up; None before the first."""

    p50: float | None
    p99: float | None


class StageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One stage process as it is now."""

    name: str
    kind: Kind
    replica: int
    pid: int | None
    state: str
    cores_asked: str
    cores_seen: str
    """The union of the masks of all its threads, as the kernel gives them now."""
    threads: int
    precision: str = ""
    """The precision that its model computes in, by its own account; empty until it has loaded."""
    load_s: float | None = None
    """Seconds its last load took; None until it has loaded."""
    job: str | None
    """The prompt's id."""
    step: int
    steps: int
    busy_share: float
    """Share of the time since it loaded that it spent on jobs."""
    recent_busy_share: float = 0.0
    """The same for the last seconds, as many as the status says."""
    recent_cores_used: float = 0.0
    """CPU seconds a second that its process used in that time."""
    busy_s: float = 0.0
    """Seconds spent on jobs since it loaded."""
    cpu_s: float = 0.0
    """CPU seconds of its process since that was started."""
    recent_cores_idle: float = 0.0
    """How many of its cores nobody used in that time, by the kernel's count."""
    cores_idle_s: float = 0.0
    """Seconds that its cores were idle, in all, since the machine was started."""
    streams: int = 1
    max_rows: int = 2
    depth: int = 2
    """Jobs it may hold: those it works on and one more."""
    restarts: int
    rss_bytes: int
    pss_bytes: int
    cache_hit_share: float | None = None
    """Share of prompts whose embeds were there already; None for stages without a cache."""
    cpu_outside_infer_share: float | None
    """Share of this process's CPU time since load that was not inside a model forward."""


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """The limit of a pipeline's images a second, as orchestrator.bottleneck finds it."""

    limits: str | None
    """A stage's name, `cores` and their list, or `prompts`; None where nothing was done."""
    why: str
    """The figures that say so, in one line."""
    change: str
    """The one change that would help most; empty where the figures support none."""


class Status(_FromHub, frozen=True, kw_only=True, tag="status"):
    """Answer to a status request."""

    state: Literal["starting", "serving", "draining"]
    uptime_s: float
    model: str
    queue: QueueStatus
    arena: ArenaStatus
    stages: tuple[StageStatus, ...]
    share: str = ""
    """How stages with the same cores share them."""
    cores: str = ""
    """All cores that the server may use."""
    cpu_quota: float | None = None
    """CPU seconds a second that its cgroup grants; None for no limit."""
    recent_s: float = 0.0
    """How far back what is called recent goes."""
    bottleneck: Bottleneck | None = None
    """The limit now; None while the pipeline starts."""
    hop_us: HopStatus
    replayed: int = 0
    """Jobs that had to be sent again since the start."""
    hub_pid: int
    hub_cpu_s: float
    sizes: tuple[tuple[int, int], ...] = ()
    """Widths and heights in pixels that are served; the first one is made where a request names none."""
    default_steps: int = 0
    """Steps where a request names none."""
    protocol: int = 0
    """The server's PROTOCOL; 0 from servers that are older than the number."""


class Trace(_FromHub, frozen=True, kw_only=True, tag="trace"):
    """Answer to a trace request; the binary frame that follows is an orchestrator.trace.recording.Recording."""


PromptAnswer = Accepted | Quoted | Forgotten | Waiting | Progress | Preview | Image | Traced | Done | Failed
"""Answers about one prompt, with its `id`."""

HubMessage = PromptAnswer | Attached | Status | Trace

News = Waiting | Progress | Preview
"""Messages that only say how far a prompt is: whoever misses one is told by the next."""

_to_json = msgspec.json.Encoder().encode
_client_message: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_hub_message: msgspec.json.Decoder[HubMessage] = msgspec.json.Decoder(HubMessage)


class _Header(msgspec.Struct, frozen=True):
    """The field that tells a message which this version does not know from one that is none."""

    type: str


_header: msgspec.json.Decoder[_Header] = msgspec.json.Decoder(_Header)
_NEEDED = {kind.__struct_config__.tag for kind in get_args(HubMessage) if kind not in get_args(News)}
"""Types of message that a client cannot do without; one of these that cannot be read is an error."""

_WHY_CHARS = 300
"""How much of a decoder's message, which may quote the request, a client is told."""

_LONE_SURROGATE = re.compile(rb"\\ud[89ab]..(?!\\ud[c-f])", re.IGNORECASE)
"""The first half of a pair without the second; msgspec takes some of these for the end of the input."""


def encode(message: ClientMessage | HubMessage) -> bytes:
    """Encode a message between a client and the hub."""
    return _to_json(message)


def decode_hub_message(frame: bytes) -> HubMessage | None:
    """Decode what the hub sent to a client; None for what a newer server says and this version can do without.

    That is a message of an unknown type, or news with values that are unknown here (of a new kind of stage, say).
    Raises one of UNREADABLE for all else that cannot be read.
    """
    try:
        return _hub_message.decode(frame)
    except msgspec.ValidationError:
        if _header.decode(frame).type in _NEEDED:
            raise
        return None


def decode_client_message(frame: bytes) -> ClientMessage:
    """Decode what a client sent. Raises BadRequest, whatever the bytes are."""
    if len(frame) > MAX_REQUEST_BYTES:
        raise BadRequest(f"the request has {len(frame):,} bytes; at most {MAX_REQUEST_BYTES:,} are read")
    try:
        return _client_message.decode(frame)
    except UNREADABLE as error:
        raise BadRequest(f"not a request: {why_unreadable(frame, error)}") from error


def why_unreadable(frame: bytes, error: Exception) -> str:
    """The reason for which JSON could not be decoded, in words for a person."""
    unpaired = isinstance(error, UnicodeDecodeError) or "surrogate" in str(error) or _LONE_SURROGATE.search(frame)
    return "its text is not valid Unicode (a lone surrogate, or not UTF-8)" if unpaired else str(error)[:_WHY_CHARS]


def id_of_broken(frame: bytes) -> str:
    """The id of a request that could not be decoded, if one can be made out, else an empty one."""
    try:
        found: Any = json.loads(frame[:MAX_REQUEST_BYTES])
    except (ValueError, RecursionError):
        return ""
    name = found.get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str) and 0 < len(name) <= 128 and name.isprintable() else ""
