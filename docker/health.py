"""The health check of the images: exit status 0 while /health/ready answers 200. Small, as it runs often."""

import http.client
import os
import sys

TIMEOUT = 4  # s; a little less than the image's --timeout, so that the reason below is what is logged

connection = http.client.HTTPConnection(
    "127.0.0.1", int(os.environ.get("YOUTU_PORT") or 8080), timeout=TIMEOUT
)
try:
    connection.request("GET", "/health/ready")
    response = connection.getresponse()
    sys.stdout.write(response.read().decode())
    sys.exit(response.status != http.client.OK)
except OSError as error:
    sys.exit(f"no answer: {error}")
