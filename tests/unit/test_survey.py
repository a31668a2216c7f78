from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID
from confluent_kafka.admin import AdminClient

from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.domain.position import Partition
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.survey import TopicSurvey

WHERE = Partition("topic-cpu", 0)


def answering(monkeypatch: pytest.MonkeyPatch, offset: int) -> TopicSurvey:
    """Return a survey whose client gives this offset for every question."""

    def list_offsets(_: AdminClient, asked: dict[Any, Any], **_options: object) -> dict[Any, Any]:
        done: Future[Any] = Future()
        done.set_result(SimpleNamespace(offset=offset))
        return dict.fromkeys(asked, done)

    monkeypatch.setattr(AdminClient, "list_offsets", list_offsets)
    return TopicSurvey(KafkaAccess("127.0.0.1:1"), "test", [WHERE.topic_name])


def test_an_offset_that_the_broker_did_not_give_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen where a broker stood still in the middle of an answer: no error, and this for an offset.
    survey = answering(monkeypatch, OFFSET_INVALID)
    for ask in (survey.lows, survey.highs):
        with pytest.raises(ServiceUnreachable, match="no offset of topic-cpu-0 came"):
            ask([WHERE], 1.0)


def test_an_offset_that_the_broker_knows_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    survey = answering(monkeypatch, 7)
    assert survey.lows([WHERE], 1.0) == survey.highs([WHERE], 1.0) == {WHERE: 7}
