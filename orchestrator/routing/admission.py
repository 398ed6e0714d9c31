"""Admission: which prompts are taken in, and what owners may ask of theirs."""

from orchestrator.routing.actions import Actions
from orchestrator.routing.books import FIRST, Books
from orchestrator.routing.delivery import Delivery
from orchestrator.routing.jobs import Job, Owner, Prompt
from orchestrator.routing.kept import KeptResults
from orchestrator.routing.request import Request, check_name, resolve
from stages.core import wire
from stages.core.errors import Cancelled, Conflict, NotFound, Overloaded, ShuttingDown, TriptychError
from stages.core.order import SchedulingKey
from stages.core.route import TEXT_TO_IMAGE

_GONE = Cancelled("the client is gone")


class Admission:
    """The door: every method answers one message of a client, or raises a TriptychError that is the answer."""

    def __init__(self, books: Books, actions: Actions, delivery: Delivery, kept: KeptResults, queue_limit: int) -> None:
        self._books = books
        self._actions = actions
        self._delivery = delivery
        self._kept = kept
        self._queue_limit = queue_limit
        self._count = 0
        self.draining = False
        """Whether nothing is taken in any more."""

    def submit(self, client: bytes, submit: wire.Submit, draw: int, now_ns: int) -> None:
        """Take a prompt in; one that its owner has in work, or had made lately, is told of again instead.

        `draw` is the seed where the client names none.
        """
        requests = resolve(submit, self._books.plan.card, self._books.plan.sizes, draw)
        owner = client if submit.owner is None else submit.owner
        if self._answered_before(client, owner, submit, now_ns):
            return
        requests, key = self._fit(requests, submit, now_ns)
        self._kept.forget(owner, submit.id)  # one that had failed, and is tried anew
        prompt = Prompt(owner, submit, {client: None}, now_ns)
        self._books.prompts[owner, submit.id] = prompt
        for index, request in enumerate(requests):
            self._take_in(prompt, index, request, key, now_ns)
        prompt.numbers = tuple(sorted(prompt.jobs))
        self._delivery.accepted(prompt, (client,), now_ns)

    def quote(self, client: bytes, quote: wire.Quote, now_ns: int) -> None:
        """Say what a prompt would take, and take nothing in."""
        requests = resolve(quote, self._books.plan.card, self._books.plan.sizes, draw=0)
        feasible = True
        try:
            requests, _ = self._fit(requests, quote, now_ns)
        except TriptychError:
            feasible = False
        key = _scheduling_key(quote, now_ns)
        seconds, eta_s = self._books.forecast.quote(requests, key, self._books.pending(now_ns), now_ns)
        self._actions.tell((client,), wire.Quoted(id=quote.id, seconds=seconds, eta_s=eta_s, feasible=feasible))

    def cancel(self, client: bytes, cancel: wire.Cancel, now_ns: int) -> None:
        """Give a prompt up, wherever its jobs are."""
        prompt = self._books.prompts.get((client if cancel.owner is None else cancel.owner, cancel.id))
        if prompt is None:
            raise NotFound(f"`id` {cancel.id!r} is not in work")
        prompt.listeners.setdefault(client)  # whoever asks for the end is told of it
        self._delivery.fail([prompt], Cancelled("cancelled by the client"), now_ns)

    def attach(self, client: bytes, attach: wire.Attach, now_ns: int) -> None:
        """Tell a connection of one prompt of a named owner, or of all: in work, or ended lately."""
        check_name("owner", attach.owner)
        self._kept.expire(now_ns)
        wanted = (attach.id,) if attach.id is not None else None
        prompts = [
            prompt
            for (owner, id), prompt in self._books.prompts.items()
            if owner == attach.owner and (wanted is None or id in wanted)
        ]
        ended = [each for each in self._kept.of(attach.owner) if wanted is None or each.submit.id in wanted]
        if wanted is not None and not prompts and not ended:
            raise NotFound(f"`id` {attach.id!r} is neither in work nor kept; submit it again")
        names = tuple(prompt.id for prompt in prompts), tuple(each.submit.id for each in ended)
        self._actions.tell((client,), wire.Attached(in_work=names[0], ended=names[1]))
        for each in ended:
            self._delivery.repeat(client, each)
        for prompt in prompts:
            self._delivery.join(client, prompt, now_ns)

    def forget(self, client: bytes, forget: wire.Forget) -> None:
        """Keep a prompt that has ended no longer."""
        if (forget.owner, forget.id) in self._books.prompts:
            raise Conflict(f"`id` {forget.id!r} is in work; cancel it first")
        if not self._kept.forget(forget.owner, forget.id):
            raise NotFound(f"`id` {forget.id!r} is not kept")
        self._actions.tell((client,), wire.Forgotten(id=forget.id))

    def gone(self, client: bytes, now_ns: int) -> None:
        """A connection has ended: its own prompts are given up, those of named owners go on untold."""
        prompts = self._books.prompts.values()
        for prompt in prompts:
            prompt.listeners.pop(client, None)
        self._delivery.fail([prompt for prompt in prompts if prompt.owner == client], _GONE, now_ns)

    def _answered_before(self, client: bytes, owner: Owner, submit: wire.Submit, now_ns: int) -> bool:
        """Tell of the prompt of this id that there is already; False if there is none, or one that failed.

        Raises Conflict where that one is another.
        """
        self._kept.expire(now_ns)
        prompt, ended = self._books.prompts.get((owner, submit.id)), self._kept.find(owner, submit.id)
        if prompt is not None:
            _check_same(submit, prompt.submit, "in work")
            self._delivery.join(client, prompt, now_ns)
            return True
        if ended is not None and isinstance(ended.last, wire.Done):
            _check_same(submit, ended.submit, "kept")
            self._actions.tell((client,), wire.Accepted(id=submit.id, position=0, eta_s=0.0))
            self._delivery.repeat(client, ended)
            return True
        return False

    def _fit(self, requests: list[Request], submit: wire.Submit, now_ns: int) -> tuple[list[Request], SchedulingKey]:
        """The requests as they can be done, and what ranks them. Raises what they are refused with."""
        if self.draining:
            raise ShuttingDown("the server is stopping; send this again later")
        books, key = self._books, _scheduling_key(submit, now_ns)
        waiting = len(books.queue)
        room = self._queue_limit + books.arena.free_slots(TEXT_TO_IMAGE[0].writes) - waiting
        if len(requests) > room:
            error = Overloaded(f"{waiting} images wait already; send this again later")
            error.retry_after_s = books.forecast.first_done(books.pending(now_ns))
            raise error
        if key.deadline is not None:
            requests = books.forecast.fit(requests, key, submit.min_steps, books.pending(now_ns), now_ns)
        return requests, key

    def _take_in(self, prompt: Prompt, index: int, request: Request, key: SchedulingKey, now_ns: int) -> None:
        """Let one image of a prompt join the queue."""
        card = self._books.plan.card
        self._count += 1
        rows = card.rows(request.denoise.guidance_scale)
        job = Job(self._count, prompt, index, request, request.evaluations(card), rows, now_ns, key)
        assert job.kind == FIRST
        self._books.jobs[job.number] = job
        prompt.jobs.add(job.number)
        self._books.queue.add(job, now_ns)


def _scheduling_key(submit: wire.Submit, now_ns: int) -> SchedulingKey:
    now_s = now_ns / 1e9
    return SchedulingKey(now_s, submit.priority, None if submit.deadline_s is None else now_s + submit.deadline_s)


def _check_same(submit: wire.Submit, other: wire.Submit, where: str) -> None:
    if submit != other:
        raise Conflict(f"another prompt of `id` {submit.id!r} is {where}; choose another id")
