from threading import Event

from fleetpulse.config import Settings
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.roles.publish import Publisher


def test_a_batch_that_waits_for_its_topic_does_not_hold_up_an_end() -> None:
    settings = Settings.model_validate({"broker": {"port": free_port()}})
    said: list[str] = []
    publisher = Publisher(settings, KafkaAccess(settings.bootstrap()), "id", Event(), said.append)
    batch = publisher.start(0, [])
    publisher.close()
    assert batch.result() is False
    assert len(said) == 1
    assert "the windows wait for their topic" in said[0]
