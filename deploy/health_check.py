"""The image's health check: ends with 0 when the gateway answers /healthz, at its own address, by TLS where that is set.

It imports nothing of the gateway's: every ten seconds that would take more time than the question.
"""

from __future__ import annotations

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPSConnection

TIMEOUT_SECONDS = 2

host = os.environ.get("GATEWAY_HOST") or "127.0.0.1"  # to connect to 0.0.0.0 or :: is to connect to this machine
port = int(os.environ.get("GATEWAY_PORT") or 8080)
connection = HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
if os.environ.get("GATEWAY_TLS_CERT"):
    unverified = ssl.create_default_context()
    unverified.check_hostname = False  # the certificate is for the name that clients use
    unverified.verify_mode = ssl.CERT_NONE
    connection = HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=unverified)
connection.request("GET", "/healthz")
sys.exit(connection.getresponse().status != 200)
