"""Measures the bridge, its peers and its floors on the same records.

In the order of a run: `cli` reads the command line, `stand` has the servers and the programs,
`shapes` says what is measured, `contenders` are who is measured (`bridge`, `engine`, `peers`),
`catchup` measures one of them once, `floors` what no bridge can go below, `latency`, `overload`,
`nats`, `scaling` and `live` the rest, `report` writes it down. `accounts` reads /proc, `clickhouse` asks.

Everything is measured from outside, by the same means for all: the broker's bytes say when a
contender began, the table when it was done, the operating system what each process used.
"""
