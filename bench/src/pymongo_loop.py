"""The PyMongo loop: what one would write first. Same pipeline, batch size and wait as the other contenders.

Protocol as in contender.rs: one line of JSON, then it stays until its standard input is closed.
"""

import json
import sys
import time

from bson import json_util
from pymongo import MongoClient

uri, database, pipeline, events_wanted, batch_size, await_ms = sys.argv[1:]
pipeline = json_util.loads(pipeline)
start = pipeline.pop(0)["$changeStream"]["startAtOperationTime"]
events_wanted = int(events_wanted)

events = 0
client = MongoClient(uri)
with client[database].watch(
    pipeline, start_at_operation_time=start, batch_size=int(batch_size), max_await_time_ms=int(await_ms)
) as stream:
    stream.next()
    since = time.perf_counter()
    events = 1
    while events < events_wanted:
        stream.next()
        events += 1
seconds = time.perf_counter() - since
print(json.dumps({"events": events, "first_events": 1, "seconds": seconds}), flush=True)
sys.stdin.read()
