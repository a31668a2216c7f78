"""What runs on a machine: the role that a service is made for and that `doctor` checks."""

from enum import StrEnum

from fleetpulse.domain.machine import Machine


class Role(StrEnum):
    """What this machine is for."""

    BROKER = "broker"
    PRODUCER = "producer"
    CONSUMER1 = "consumer1"
    CONSUMER2 = "consumer2"
    MONITOR = "monitor"
    SPARK_JOB1 = "spark-job1"
    SPARK_JOB2 = "spark-job2"
    SPARK_STREAM = "spark-stream"

    @property
    def user(self) -> str | None:
        """Return the user that it logs in as; None for one that uses no broker."""
        if self in (Role.SPARK_JOB1, Role.SPARK_JOB2):
            return None
        return Machine.MONITOR.user if self is Role.SPARK_STREAM else Machine(self.value).user
