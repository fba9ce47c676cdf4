"""Moves messages from a queue into the Kafka topic that the stream workers read; loses none."""
