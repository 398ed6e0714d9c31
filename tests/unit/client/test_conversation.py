import pytest

from orchestrator.client.conversation import UNREAD, Answers, Conversation, Queue
from orchestrator.client.liveness import Liveness
from stages.core import wire
from stages.core.errors import Conflict, NoAnswer
from tests.unit.fake_hub import image
from tests.unit.statuses import status


@pytest.fixture
def conversation() -> Conversation:
    return Conversation("tcp://here", Liveness("tcp://here", 30.0, None, 0.0))


def opened(conversation: Conversation, id: str) -> Queue:
    queue = Queue(id)
    conversation.check_free(id)
    conversation.opened(queue)
    return queue


def submit(id: str) -> wire.Submit:
    return wire.Submit(id=id, prompt="a cat")


def accepted(id: str) -> wire.Accepted:
    return wire.Accepted(id=id, position=0, eta_s=None)


def done(id: str) -> wire.Done:
    return wire.Done(id=id)


def failed(id: str, code: str) -> wire.Failed:
    return wire.Failed(id=id, code=code, message="", retryable=False)


def progress(id: str, step: int, index: int = 0) -> wire.Progress:
    return wire.Progress(id=id, stage="unet", step=step, steps=10**6, index=index)


def tell(conversation: Conversation, *messages: wire.HubMessage, payload: bytes | None = None) -> None:
    for message in messages:
        conversation.take_in((message, payload), 1.0)


def taken(queue: Queue) -> list[wire.HubMessage]:
    found = []
    while (event := queue.take()) is not None:
        found.append(event[0])
    return found


def test_every_message_goes_where_it_belongs(conversation: Conversation) -> None:
    one, two = opened(conversation, "1"), opened(conversation, "2")
    conversation.sent(submit("3"))
    conversation.statuses.ask()
    tell(conversation, accepted("2"), accepted("1"), accepted("3"), status(), done("1"), failed("", "bad_request"))
    assert taken(one) == [accepted("1"), done("1")]
    assert taken(two) == [accepted("2")]
    assert [message for message, _ in conversation.others] == [accepted("3"), failed("", "bad_request")]
    assert (one.ended, two.ended) == (True, False)
    assert not conversation.statuses.pending


def test_an_id_is_free_when_its_prompt_has_ended(conversation: Conversation) -> None:
    opened(conversation, "1")
    with pytest.raises(Conflict):
        conversation.check_free("1")
    tell(conversation, done("1"))
    again = opened(conversation, "1")
    tell(conversation, accepted("1"))
    assert taken(again) == [accepted("1")]


def close(conversation: Conversation, queue: Queue) -> None:
    conversation.sent(wire.Cancel(id=queue.id))
    queue.close()


@pytest.mark.parametrize(
    "last_words",
    [
        [progress("1", 1), failed("1", "cancelled")],
        [done("1"), failed("1", "not_found")],
        [failed("1", "stage_lost"), failed("1", "not_found")],
    ],
)
def test_a_closed_stream_answers_for_itself_and_not_for_the_next_of_its_id(
    last_words: list[wire.HubMessage], conversation: Conversation
) -> None:
    old = opened(conversation, "1")
    tell(conversation, accepted("1"))
    close(conversation, old)
    new = opened(conversation, "1")
    tell(conversation, *last_words, accepted("1"), done("1"))
    assert taken(old) == []
    assert taken(new) == [accepted("1"), done("1")]
    assert not conversation.others
    assert not conversation.busy


def test_news_that_nobody_reads_is_bounded_and_all_else_is_kept(conversation: Conversation) -> None:
    queue = opened(conversation, "1")
    tell(conversation, accepted("1"))
    for step in range(5000):
        tell(conversation, progress("1", step, step % 3), wire.Waiting(id="1", position=0, eta_s=float(step)))
        if step % 1000 == 999:
            tell(conversation, image(submit("1"), step // 1000)[0])
    found = taken(queue)
    assert len(found) <= UNREAD + 10
    assert found[0] == accepted("1")
    assert [message.index for message in found if isinstance(message, wire.Image)] == [0, 1, 2, 3, 4]
    newest = {message.index: message.step for message in found if isinstance(message, wire.Progress)}
    assert newest == {0: 4998, 1: 4999, 2: 4997}


def test_what_is_read_in_time_is_complete(conversation: Conversation) -> None:
    queue = opened(conversation, "1")
    tell(conversation, *(progress("1", step) for step in range(UNREAD)))
    assert taken(queue) == [progress("1", step) for step in range(UNREAD)]


def test_another_server_knows_nothing_of_what_was_sent(conversation: Conversation) -> None:
    tell(conversation, status(hub_pid=1))
    queue = opened(conversation, "1")
    conversation.sent(submit("2"))
    tell(conversation, accepted("1"), status(hub_pid=2))
    assert queue.take() == (accepted("1"), None)
    for _ in range(2):  # for ever
        with pytest.raises(NoAnswer, match="was restarted and knows nothing of these prompts; send them again"):
            queue.take()
    with pytest.raises(NoAnswer, match="was restarted"):
        conversation.raise_lost()
    conversation.raise_lost()  # it has been told
    assert not conversation.busy


def test_a_server_that_is_restarted_while_nothing_is_with_it_is_welcome(conversation: Conversation) -> None:
    tell(conversation, status(hub_pid=1), status(hub_pid=2))
    conversation.raise_lost()


def test_a_lost_connection_takes_its_prompts_along_but_for_those_that_had_ended(conversation: Conversation) -> None:
    ends, stays = opened(conversation, "ends"), opened(conversation, "stays")
    conversation.sent(submit("without"))
    conversation.dropped()
    after = opened(conversation, "after")  # over the next connection
    tell(conversation, done("ends"))  # had been said before
    conversation.nothing_more()
    assert taken(ends) == [done("ends")]
    with pytest.raises(NoAnswer, match="connection to tcp://here was lost"):
        stays.take()
    with pytest.raises(NoAnswer, match="connection to tcp://here was lost"):
        conversation.raise_lost()
    assert after.take() is None
    tell(conversation, done("after"))
    assert taken(after) == [done("after")]


def test_questions_are_answered_in_their_order() -> None:
    answers: Answers[str] = Answers()
    first, second = answers.ask(), answers.ask()
    answers.came("a")
    assert (answers.answered(first), answers.answered(second), answers.newest) == (True, False, "a")
    answers.came("b")
    assert (answers.answered(second), answers.newest) == (True, "b")


def test_a_question_that_is_lost_is_not_answered_by_the_answer_to_the_next() -> None:
    answers: Answers[str] = Answers()
    lost = answers.ask()
    answers.write_off()
    again = answers.ask()
    assert answers.lost(lost)
    assert not answers.lost(again)
    assert not answers.answered(again)
    answers.came("a")
    assert answers.answered(again)
