"""Apache Spark: a session, and the domain's windows and rules compiled to its columns.

Importing this package raises UsageError where PySpark is not installed.
"""

from importlib.util import find_spec

from fleetpulse.domain.errors import UsageError

if find_spec("pyspark") is None:
    raise UsageError(
        "PySpark is not installed on this machine; install it with: pip install 'fleetpulse[spark]'"
    )
