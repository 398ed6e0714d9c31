import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from stages.core.arena import PAGE, Arena, Layout, PoolSpec, SlotRef, SlotState, View
from stages.core.errors import StaleSlot, TornSlot
from stages.core.region import Region, available_memory

FREE, GRANTED, WRITING, READY = SlotState
OWNER, STRANGER, JOB = 7, 8, 42
POOLS = (PoolSpec("latents", 3, 100), PoolSpec("images", 2, 2 * PAGE))
LAYOUT = Layout(POOLS)


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(LAYOUT)
    yield arena
    arena.close()


def view_of(arena: Arena, owner: int) -> View:
    return View(os.dup(arena.region.fd), LAYOUT, owner)


@pytest.fixture
def view(arena: Arena) -> Iterator[View]:
    view = view_of(arena, OWNER)
    yield view
    view.close()


@pytest.fixture
def stranger(arena: Arena) -> Iterator[View]:
    view = view_of(arena, STRANGER)
    yield view
    view.close()


def put(arena: Arena, view: View, content: bytes) -> SlotRef:
    ref = arena.reserve("latents", OWNER, JOB)
    view.write(ref)[: len(content)] = np.frombuffer(content, np.uint8)
    view.seal(ref, len(content))
    return ref


def bring_to(state: SlotState, arena: Arena, view: View) -> SlotRef:
    """A slot in `state`, and the reference of its present generation."""
    ref = arena.reserve("latents", OWNER, JOB)
    if state in (WRITING, READY):
        view.write(ref)
    if state is READY:
        view.seal(ref, 10)
    if state is FREE:
        arena.free(ref)
        return SlotRef(ref.index, ref.generation + 1)
    return ref


OPERATIONS: dict[str, Callable[[Arena, View, SlotRef], object]] = {
    "write": lambda arena, view, ref: view.write(ref),
    "seal": lambda arena, view, ref: view.seal(ref, 10),
    "view reads": lambda arena, view, ref: view.read(ref),
    "view lends": lambda arena, view, ref: view.lend(ref),
    "arena reads": lambda arena, view, ref: arena.read(ref),
    "regrant": lambda arena, view, ref: arena.regrant(ref, STRANGER),
    "free": lambda arena, view, ref: arena.free(ref),
}
LEGAL = {
    (GRANTED, "write"): WRITING,
    (GRANTED, "regrant"): GRANTED,
    (GRANTED, "free"): FREE,
    (WRITING, "write"): WRITING,
    (WRITING, "seal"): READY,
    (WRITING, "regrant"): GRANTED,
    (WRITING, "free"): FREE,
    (READY, "view reads"): READY,
    (READY, "view lends"): READY,
    (READY, "arena reads"): READY,
    (READY, "regrant"): GRANTED,
    (READY, "free"): FREE,
}
ILLEGAL = [(state, operation) for state in SlotState for operation in OPERATIONS if (state, operation) not in LEGAL]


@given(
    st.lists(
        st.builds(PoolSpec, st.text(max_size=3), st.integers(0, 9), st.integers(0, 3 * PAGE)),
        unique_by=lambda pool: pool.name,
        max_size=5,
    )
)
def test_slots_lie_apart_on_whole_pages_behind_their_headers(pools: list[PoolSpec]) -> None:
    layout = Layout(tuple(pools))
    end = 64 * sum(pool.count for pool in pools)
    for offset, nbytes in layout.payloads:
        assert offset % PAGE == 0
        assert offset >= end
        end = offset + nbytes
    assert end <= layout.nbytes
    for pool in pools:
        indices = layout.indices[pool.name]
        assert len(indices) == pool.count
        assert all(layout.pool_of(index) == pool.name for index in indices)
        assert all(layout.payloads[index][1] == pool.slot_bytes for index in indices)
    assert sum(map(len, layout.indices.values())) == len(layout.payloads)


@pytest.mark.parametrize(("state", "operation"), LEGAL)
def test_every_drawn_transition_is_made(state: SlotState, operation: str, arena: Arena, view: View) -> None:
    ref = bring_to(state, arena, view)
    OPERATIONS[operation](arena, view, ref)
    assert arena.state(ref.index) is view.state(ref.index) is LEGAL[state, operation]


@pytest.mark.parametrize(("state", "operation"), ILLEGAL)
def test_every_other_transition_is_refused(state: SlotState, operation: str, arena: Arena, view: View) -> None:
    ref = bring_to(state, arena, view)
    with pytest.raises(StaleSlot):
        OPERATIONS[operation](arena, view, ref)
    assert arena.state(ref.index) is state
    assert arena.free_slots("latents") == (3 if state is FREE else 2)


@pytest.mark.parametrize("state", SlotState)
@pytest.mark.parametrize("operation", ["write", "seal"])
def test_only_the_owner_writes(state: SlotState, operation: str, arena: Arena, view: View, stranger: View) -> None:
    ref = bring_to(state, arena, view)
    with pytest.raises(StaleSlot):
        OPERATIONS[operation](arena, stranger, ref)
    assert arena.state(ref.index) is state


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("end", ["freed", "reserved again", "granted anew"])
def test_a_reference_does_not_outlive_its_claim(operation: str, end: str, arena: Arena, view: View) -> None:
    ref = put(arena, view, b"of the first job")
    if end == "granted anew":
        again = arena.regrant(ref, OWNER)
    else:
        arena.free(ref)
        again = arena.reserve("latents", OWNER, JOB + 1) if end == "reserved again" else ref
    assert again.index == ref.index
    before = arena.state(ref.index)
    with pytest.raises(StaleSlot):
        OPERATIONS[operation](arena, view, ref)
    assert arena.state(ref.index) is before


@pytest.mark.parametrize("ref", [SlotRef(-1, 0), SlotRef(5, 0), SlotRef(0, -1), SlotRef(0, 1 << 70)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_made_up_reference_is_refused(ref: SlotRef, operation: str, arena: Arena, view: View) -> None:
    with pytest.raises(StaleSlot):
        OPERATIONS[operation](arena, view, ref)


def test_the_header_holds_the_words_that_are_drawn(arena: Arena, view: View) -> None:
    ref = put(arena, view, b"seventeen bytes..")
    header = arena.region.array(64 * ref.index, 64).view(np.uint64)
    assert header.tolist() == [ref.generation, READY, OWNER, JOB, 17, zlib.crc32(b"seventeen bytes.."), 0, 0]


def test_a_reader_gets_the_sealed_bytes_and_no_more_without_a_copy_and_read_only(arena: Arena, view: View) -> None:
    ref = put(arena, view, b"latents")
    found = arena.read(ref)
    assert found.tobytes() == view.read(ref).tobytes() == b"latents"
    assert np.shares_memory(found, arena.region.array(*LAYOUT.payloads[ref.index]))
    for read_only in (found, view.read(ref)):
        with pytest.raises(ValueError, match="read-only"):
            read_only[0] = 1


def test_a_new_owner_finds_the_bytes_of_the_dead_one(arena: Arena, view: View, stranger: View) -> None:
    ref = arena.reserve("images", OWNER, JOB)
    view.write(ref)[:] = 5
    again = arena.regrant(ref, STRANGER)
    assert (stranger.write(again) == 5).all()
    with pytest.raises(StaleSlot):
        view.write(again)
    stranger.seal(again, 3)
    assert arena.read(again).tolist() == [5, 5, 5]


@given(st.binary(min_size=1, max_size=100), st.data())
def test_one_changed_bit_is_a_torn_slot(content: bytes, data: st.DataObject) -> None:
    arena = Arena(LAYOUT)
    view = view_of(arena, OWNER)
    try:
        ref = put(arena, view, content)
        changed = arena.region.array(LAYOUT.payloads[ref.index][0], len(content))
        changed[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        for read in (arena.read, view.read, view.lend):
            with pytest.raises(TornSlot):
                read(ref)
    finally:
        view.close()
        arena.close()


@pytest.mark.parametrize("word", [4, 5])
def test_a_changed_length_or_checksum_is_a_torn_slot(word: int, arena: Arena, view: View) -> None:
    ref = put(arena, view, b"latents")
    arena.region.array(64 * ref.index, 64).view(np.uint64)[word] += 1
    with pytest.raises(TornSlot):
        arena.read(ref)


def test_a_state_that_is_none_is_a_torn_slot_and_can_be_freed(arena: Arena, view: View) -> None:
    ref = put(arena, view, b"latents")
    arena.region.array(64 * ref.index, 64).view(np.uint64)[1] = 77
    for read in (arena.read, view.read, view.lend):
        with pytest.raises(TornSlot, match="has 77 for a state"):
            read(ref)
    with pytest.raises(TornSlot):
        arena.state(ref.index)
    arena.free(ref)
    assert arena.reserve("latents", OWNER, JOB).index == ref.index


@pytest.mark.parametrize("nbytes", [101, 10**9, -1])
def test_no_more_is_sealed_than_the_slot_holds(nbytes: int, arena: Arena, view: View) -> None:
    ref = bring_to(WRITING, arena, view)
    with pytest.raises(ValueError, match=f"{nbytes:,} bytes do not fit slot {ref.index} of 100"):
        view.seal(ref, nbytes)
    assert arena.state(ref.index) is WRITING
    view.seal(ref, 100)


def test_slots_are_reserved_in_order_until_none_is_left(arena: Arena) -> None:
    refs = [arena.reserve("latents", OWNER, job) for job in range(3)]
    assert [ref.index for ref in refs] == list(LAYOUT.indices["latents"])
    with pytest.raises(IndexError):
        arena.reserve("latents", OWNER, JOB)
    assert arena.free_slots("latents") == 0
    assert arena.free_slots("images") == 2
    arena.free(refs[1])
    assert arena.free_slots("latents") == 1
    assert arena.reserve("latents", OWNER, JOB).index == refs[1].index


class Reservation(msgspec.Struct):
    """What the model of a slot remembers."""

    ref: SlotRef
    state: SlotState
    owner: int
    content: bytearray
    sealed: int = 0


class ArenaMachine(RuleBasedStateMachine):
    """Any history of an arena and two views, with references kept for ever, beside a model of a few lines."""

    refs = Bundle("refs")
    pools = st.sampled_from(POOLS)
    owners = st.sampled_from([OWNER, STRANGER])

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(LAYOUT)
        self.views = {owner: view_of(self.arena, owner) for owner in (OWNER, STRANGER)}
        self.reservations: dict[int, Reservation] = {}
        self.contents = {index: bytearray(nbytes) for index, (_, nbytes) in enumerate(LAYOUT.payloads)}

    def reservation(self, ref: SlotRef) -> Reservation | None:
        reservation = self.reservations.get(ref.index)
        return reservation if reservation is not None and reservation.ref == ref else None

    @rule(target=refs, pool=pools, owner=owners)
    def reserve(self, pool: PoolSpec, owner: int) -> object:
        if not self.arena.free_slots(pool.name):
            with pytest.raises(IndexError):
                self.arena.reserve(pool.name, owner, JOB)
            return multiple()
        ref = self.arena.reserve(pool.name, owner, JOB)
        assert ref.index not in self.reservations
        self.reservations[ref.index] = Reservation(ref, GRANTED, owner, self.contents[ref.index])
        return ref

    @rule(ref=refs, owner=owners, content=st.binary(max_size=100))
    def write(self, ref: SlotRef, owner: int, content: bytes) -> None:
        reservation = self.reservation(ref)
        if reservation is None or reservation.owner != owner or reservation.state is READY:
            with pytest.raises(StaleSlot):
                self.views[owner].write(ref)
            return
        payload = self.views[owner].write(ref)
        assert payload.tobytes() == reservation.content
        payload[: len(content)] = np.frombuffer(content, np.uint8)
        reservation.content[: len(content)] = content
        reservation.state = WRITING

    @rule(ref=refs, owner=owners, nbytes=st.integers(0, 100))
    def seal(self, ref: SlotRef, owner: int, nbytes: int) -> None:
        reservation = self.reservation(ref)
        if reservation is None or reservation.owner != owner or reservation.state is not WRITING:
            with pytest.raises(StaleSlot):
                self.views[owner].seal(ref, nbytes)
            return
        self.views[owner].seal(ref, nbytes)
        reservation.state, reservation.sealed = READY, nbytes

    @rule(ref=refs)
    def read(self, ref: SlotRef) -> None:
        reservation = self.reservation(ref)
        for side in (self.arena, *self.views.values()):
            if reservation is None or reservation.state is not READY:
                with pytest.raises(StaleSlot):
                    side.read(ref)
            else:
                assert side.read(ref).tobytes() == reservation.content[: reservation.sealed]

    @rule(target=refs, ref=refs, owner=owners)
    def regrant(self, ref: SlotRef, owner: int) -> object:
        reservation = self.reservation(ref)
        if reservation is None:
            with pytest.raises(StaleSlot):
                self.arena.regrant(ref, owner)
            return multiple()
        reservation.ref, reservation.state, reservation.owner = self.arena.regrant(ref, owner), GRANTED, owner
        return reservation.ref

    @rule(ref=refs)
    def free(self, ref: SlotRef) -> None:
        if self.reservation(ref) is None:
            with pytest.raises(StaleSlot):
                self.arena.free(ref)
            return
        self.arena.free(ref)
        del self.reservations[ref.index]

    @invariant()
    def every_slot_is_as_the_model_says(self) -> None:
        for name, indices in LAYOUT.indices.items():
            assert self.arena.free_slots(name) == sum(index not in self.reservations for index in indices)
            for index in indices:
                assert self.arena.state(index) is (
                    self.reservations[index].state if index in self.reservations else FREE
                )

    def teardown(self) -> None:
        for side in (self.arena, *self.views.values()):
            side.close()


class TestHistories(ArenaMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


READER_AND_WRITER = """
import sys
import msgspec
from stages.core.arena import Layout, PoolSpec, SlotRef, View
from stages.core.errors import StaleSlot

given, output, old = msgspec.json.decode(sys.argv[3], type=tuple[SlotRef, SlotRef, SlotRef])
view = View(int(sys.argv[1]), Layout(msgspec.json.decode(sys.argv[2], type=tuple[PoolSpec, ...])), 8)
found = view.read(given)
view.write(output)[: len(found)] = found[::-1]
view.seal(output, len(found))
try:
    view.read(old)
except StaleSlot:
    print("refused")
"""


def test_a_view_in_another_process_reads_and_writes_the_same_slots(
    arena: Arena, view: View, python: Callable[..., str]
) -> None:
    old = put(arena, view, b"stale")
    arena.free(old)
    refs = (put(arena, view, b"latents"), arena.reserve("images", STRANGER, JOB), old)
    pools, refs_text = (msgspec.json.encode(value).decode() for value in (POOLS, refs))
    said = python(READER_AND_WRITER, arena.region.fd, pools, refs_text, pass_fds=(arena.region.fd,))
    assert said == "refused\n"
    assert arena.read(refs[1]).tobytes() == b"stnetal"


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region.create("triptych-test", 2 * PAGE)
    yield region
    region.close()


@pytest.mark.parametrize("nbytes", [0, PAGE, 4 * PAGE])
def test_no_process_can_resize_the_region(nbytes: int, region: Region) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, nbytes)
    with pytest.raises(PermissionError):
        fcntl.fcntl(region.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(region.fd).st_size == 2 * PAGE


def test_the_region_is_allocated_in_full_nameless_and_not_inherited(region: Region) -> None:
    found = os.fstat(region.fd)
    assert found.st_blocks * 512 >= 2 * PAGE
    assert found.st_nlink == 0
    assert (found.st_dev, found.st_ino) not in {
        (entry.stat().st_dev, entry.stat().st_ino) for entry in os.scandir("/dev/shm")
    }
    assert not os.get_inheritable(region.fd)


REFUSED = """
import os, resource, sys
from stages.core.arena import Arena, Layout, PoolSpec
from stages.core.errors import StartFailed

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # the kernel refuses, as it would a full machine
before = os.listdir("/proc/self/fd")
try:
    Arena(Layout((PoolSpec("latents", 1, int(sys.argv[1])),)))
except StartFailed as error:
    print(error.message, os.listdir("/proc/self/fd") == before)
"""


@pytest.mark.parametrize("nbytes", [1 << 22, 1 << 60], ids=["refused by the kernel", "more than the machine has"])
def test_memory_that_cannot_be_had_is_named_in_bytes(nbytes: int, python: Callable[..., str]) -> None:
    said = python(REFUSED, nbytes)
    assert said.startswith(f"cannot allocate {nbytes + PAGE:,} bytes of shared memory: ")
    assert ("bytes are available" in said) is (nbytes == 1 << 60)
    assert said.endswith("True\n")
    assert said.count("\n") == 1


def machine(at: Path, own: str, **cgroups: tuple[str, int, int]) -> Path:
    """The files of a machine with 8 MiB available; `cgroups` have (memory.max, memory.current, file cache)."""
    (at / "proc/self").mkdir(parents=True)
    (at / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    8192 kB\nBuffers:  1 kB\n")
    (at / "proc/self/mountinfo").write_text("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (at / "proc/self/cgroup").write_text(f"9:name=systemd:/x\n4:memory:/y\n0::/{own}\n")
    for name, (limit, used, cache) in cgroups.items():
        folder = at / "sys/fs/cgroup" / ("" if name == "root" else name.replace("_", "/"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\nactive_file {cache}\ninactive_file 1\n")
    return at


@pytest.mark.parametrize(
    ("own", "cgroups", "expected"),
    [
        ("", {}, 8 << 20),
        ("", {"root": ("4000", 3000, 999)}, 2000),
        ("a/b", {"a": ("4000", 3000, 999), "a_b": ("max", 3000, 999)}, 2000),
        ("a/b", {"a": ("4000", 0, 0), "a_b": ("3000", 0, 0), "c": ("1", 0, 0)}, 3001),
        ("../../elsewhere", {"root": ("4000", 3000, 999)}, 2000),
        ("", {"root": ("4000", 9000, 0)}, 0),
        ("", {"root": (str(1 << 40), 0, 0)}, 8 << 20),
    ],
)
def test_what_is_available_is_what_the_machine_and_the_cgroups_leave(
    own: str, cgroups: dict[str, tuple[str, int, int]], expected: int, tmp_path: Path
) -> None:
    assert available_memory(machine(tmp_path, own, **cgroups)) == expected


def test_this_machine_has_memory_available() -> None:
    assert 1 << 20 < available_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# What a stage writes where it should not.

WILD = st.sampled_from([0, 1, 2, 3, 4, 99, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7), WILD), max_size=40), st.data())
def test_whatever_words_stand_in_the_headers_the_owner_loses_no_slot_and_gives_none_out_twice(
    scribbles: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    arena = Arena(LAYOUT)
    view = view_of(arena, OWNER)
    held: list[SlotRef] = []
    try:
        for slot, word, value in scribbles:
            arena._headers[slot, word] = value
            what = data.draw(st.sampled_from(["reserve", "regrant", "free", "read", "write"]))
            if what == "reserve" and arena.free_slots("latents"):
                held.append(arena.reserve("latents", OWNER, JOB))
                granted = [held[-1].generation, GRANTED, OWNER, JOB, 0, 0, 0, 0]
                assert arena._headers[held[-1].index].tolist() == granted  # whatever stood there
                view.write(held[-1])
            elif held and what == "regrant":
                held.append(arena.regrant(held.pop(0), OWNER))
                view.write(held[-1])
            elif held and what == "free":
                arena.free(held.pop(0))
            elif held and what in ("read", "write"):
                with suppress(StaleSlot, TornSlot):
                    arena.read(held[0]) if what == "read" else view.write(held[0])
            assert len({ref.index for ref in held}) == len(held) == 3 - arena.free_slots("latents")
        for ref in held:
            arena.free(ref)
        assert [arena.free_slots(pool.name) for pool in POOLS] == [pool.count for pool in POOLS]
    finally:
        view.close()
        arena.close()
