#!/usr/bin/env python3
"""The same import by dlt into DuckDB: URL FOLDER → seconds of the first load and of a reload."""

import json
import sys
import time
import urllib.request

import dlt

url, folder = sys.argv[1:3]


@dlt.resource(name="people", primary_key="_id", write_disposition="merge", max_table_nesting=0)
def people():
    with urllib.request.urlopen(url) as answer:
        entities = json.load(answer)
    for at in range(0, len(entities), 10_000):
        yield entities[at:at + 10_000]


times = []
for _ in range(2):
    began = time.monotonic()
    pipeline = dlt.pipeline("peer", destination=dlt.destinations.duckdb(f"{folder}/peer.duckdb"),
                            dataset_name="bench", pipelines_dir=f"{folder}/dlt")
    pipeline.run(people(), loader_file_format="parquet")
    times.append(time.monotonic() - began)
print(json.dumps(times))
