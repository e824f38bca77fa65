"""Writes that may be sent twice: a request with an `Idempotency-Key` is carried out once."""

from collections.abc import Callable
from typing import Generic, TypeVar

from aiohttp import web
from msgspec import Struct

from demo.services.answers import answer

Asked = TypeVar("Asked", bound=Struct)
Made = TypeVar("Made", bound=Struct)


class Once(Generic[Asked, Made]):
    """What was made for each key. A refused request leaves nothing behind, so its key may be used again."""

    def __init__(self, make: Callable[[Asked], Made]) -> None:
        self._make = make
        self._made: dict[str, tuple[Asked, Made]] = {}

    def answer(self, request: web.Request, asked: Asked) -> web.Response:
        """201 with what is made, 200 with the same again for a key and body seen before, 422 for another's key."""
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return answer(self._make(asked), 201)
        if key not in self._made:
            self._made[key] = (asked, self._make(asked))
            return answer(self._made[key][1], 201)
        before, made = self._made[key]
        if before != asked:
            raise web.HTTPUnprocessableEntity(text="this Idempotency-Key was used for another request")
        return answer(made, 200)
