"""Prints what DuckDB finds in the two tables of a directory, as JSON.

Usage: read_parquet.py DIRECTORY
"""

import json
import sys

import duckdb

QUESTIONS = {
    "transitions": "select count(*) from transitions",
    "duration_ns": "select sum(duration_ns)::bigint from transitions",
    "estimated": "select count(*) from transitions where estimated",
    "first_ns": "select min(epoch_ns(ts)) from transitions",
    "without_pid": "select count(*) from transitions where pid is null",
    "comms": "select list(distinct comm order by comm) from transitions where comm is not null",
    "connections": "select count(*) from connections",
    "ids": "select count(distinct id) from connections",
    "ended": "select count(ended) from connections",
    "moves": "select sum(transitions)::bigint from connections",
    "close_wait_ns": "select sum(close_wait_ns)::bigint from connections",
    "causes": "select list(distinct end_cause order by end_cause) from connections where ended is not null",
}


def main():
    connection = duckdb.connect()
    for table in ["transitions", "connections"]:
        path = f"{sys.argv[1]}/{table}.parquet"
        connection.execute(f"create view {table} as select * from read_parquet('{path}')")
    answer = lambda question: connection.execute(question).fetchone()[0]
    print(json.dumps({name: answer(question) for name, question in QUESTIONS.items()}))


main()
