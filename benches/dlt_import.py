"""The same import by dlt into DuckDB: stream the array, merge by id. Prints seconds and peak memory.

    dlt_import.py URL FOLDER
"""

import json
import os
import resource
import sys
import time
import urllib.request

url, folder = sys.argv[1:]
# Its own folder, and nothing sent anywhere.
os.environ.update(DLT_DATA_DIR=folder, RUNTIME__DLTHUB_TELEMETRY="false", HOME=folder)
os.environ["NORMALIZE__LOADER_FILE_FORMAT"] = "parquet"

import dlt  # noqa: E402 (it reads the environment when it is imported)


@dlt.resource(name="people", write_disposition="merge", primary_key="_id")
def people():
    with urllib.request.urlopen(url) as answer:
        page = []
        for line in answer:
            page.append(json.loads(line.strip(b"[],\n")))
            if len(page) == 10_000:
                yield page
                page = []
        yield page


pipeline = dlt.pipeline("bench", destination=dlt.destinations.duckdb(f"{folder}/store.duckdb"), dataset_name="bench", pipelines_dir=folder)
for run in ("first", "again"):
    begun = time.monotonic()
    pipeline.run(people(), loader_file_format="parquet").raise_on_failed_jobs()
    seconds = time.monotonic() - begun
    with pipeline.sql_client() as client:
        rows = client.execute_sql("SELECT count(*) FROM people")[0][0]
    print(json.dumps({"run": run, "rows": rows, "seconds": round(seconds, 2), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}), flush=True)
