"""A browser without JavaScript, as far as the tests of the console need one."""

import re
from urllib.parse import urlencode

from api_server import Answer, ApiServer
from tenant_env import Tenant

HTML = {"accept": "text/html,application/xhtml+xml"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def get(http_api: ApiServer, path: str, cookie: str = "") -> Answer:
    return http_api.ask("GET", path, None, HTML | ({"cookie": cookie} if cookie else {}))


def post(http_api: ApiServer, path: str, cookie: str = "", **fields: str) -> Answer:
    headers = HTML | FORM | ({"cookie": cookie} if cookie else {})
    return http_api.ask("POST", path, urlencode(fields).encode(), headers)


def csrf_in(page: Answer) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.body.decode())
    assert found
    return found[1]


def sign_in(tenant: Tenant) -> str:
    """The cookie of a new session."""
    http_api = tenant.env.http_api
    csrf = csrf_in(get(http_api, "/console/sign-in"))
    answer = post(http_api, "/console/sign-in", key=tenant.key, next="/", csrf=csrf)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    return answer.headers["set-cookie"].partition(";")[0]
