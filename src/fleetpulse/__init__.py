"""Fleetpulse: real-time server monitoring on Apache Kafka and Apache Spark."""
