"""A bucket as a process of its own: moto's S3 server, with the bucket `lowtide` made."""

import argparse
import json
import logging
import threading
from urllib.request import Request, urlopen

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(given.host, given.port, app, threaded=True)
    address = f"http://{given.host}:{given.port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urlopen(Request(f"{address}/lowtide", method="PUT")).close()
    print(json.dumps({"address": address}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
