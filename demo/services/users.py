"""Who the customers are."""

from aiohttp import web

from demo.services.answers import answer, asked_ids, found
from demo.services.records import User, read


class Users:
    """The customers, by id."""

    latency = 6.0

    def __init__(self) -> None:
        self.users = {user.id: user for user in read("users", User)}
        self.routes = [
            web.get("/users", self.several),
            web.get(r"/users/{id:\d{1,9}}", self.one),
        ]

    async def several(self, request: web.Request) -> web.Response:
        """`GET /users?id=1&id=2`: those that exist."""
        return answer([self.users[number] for number in asked_ids(request, int) if number in self.users])

    async def one(self, request: web.Request) -> web.Response:
        """`GET /users/7`."""
        return answer(found(self.users, int(request.match_info["id"])))
