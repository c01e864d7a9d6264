"""A webhook receiver's check, by the published Python library of Standard Webhooks.

Reads JSON lines {"headers": {...}, "body": "...", "secret": "whsec_..."} and answers each with `ok` or `bad: <why>`.
Needs: pip install standardwebhooks==1.1.0
"""

import json
import sys

from standardwebhooks import Webhook

for line in sys.stdin:
    try:
        request = json.loads(line)
        Webhook(request["secret"]).verify(request["body"], request["headers"])
        answer = "ok"
    except Exception as error:  # The library also lets errors of its parsers out.
        answer = f"bad: {type(error).__name__}: {error}".replace("\n", " ")
    print(answer, flush=True)
