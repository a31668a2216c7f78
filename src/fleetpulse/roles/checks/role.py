"""What a machine is for, as far as its checks differ."""

from enum import StrEnum


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
        if self is Role.BROKER:
            return "admin"
        if self is Role.SPARK_STREAM:
            return "monitor"
        return None if self in (Role.SPARK_JOB1, Role.SPARK_JOB2) else self.value
