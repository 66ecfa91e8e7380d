"""The control endpoint of an emulator process: HTTP with JSON, for tests and tools in other processes.

========================================  ==================================================================
request                                   what it does
========================================  ==================================================================
POST /faults {"venue", "fault", …}        arm or carry out a fault (``faults.Fault`` has the other keys)
DELETE /faults[?venue=]                   disarm all, end stalls and refusals
GET /faults[?venue=]                      what is armed, and how often each kind has happened
POST /pause                               stop the market; answers when all is on the wire
POST /resume                              let it run
POST /rate {"rate": 200}                  steps per second
POST /advance {"steps": 10}               make so many steps now, paused or not
GET /truth/book?venue=&instrument=        the true book, now or at ``&update_id=``; ``&limit=`` levels
GET /truth/trades?venue=&instrument=      trades, the latest or ``&from_id=``/``&to_id=``
GET /truth/instruments?venue=             the venue's names, by canonical symbol
GET /stats                                connections, messages sent, steps made and shed
GET /endpoints                            the announcement, again
========================================  ==================================================================

Errors: 400 with ``{"error": …}`` for a bad request, 404 for an unknown venue or instrument, 410 for history
that is no longer kept. ``client.py`` is the other end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from aiohttp import web

from mdring.emulator.book import Book
from mdring.emulator.faults import Fault
from mdring.record import Aggressor

if TYPE_CHECKING:
    from mdring.emulator.host import VenueHost
    from mdring.emulator.server import EmulatorServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_TRADES: Final = 10_000  # in one answer
MAX_STEPS: Final = 1_000_000  # in one call: the process does nothing else meanwhile


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    rate: int


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    steps: Annotated[int, msgspec.Meta(ge=0, le=MAX_STEPS)]


def control_application(server: EmulatorServer) -> web.Application:
    """The routes above, bound to this server."""
    control = _Control(server)
    application = web.Application(middlewares=[_tell_errors])
    application.router.add_routes(
        [
            web.post("/faults", control.inject),
            web.delete("/faults", control.clear_faults),
            web.get("/faults", control.faults),
            web.post("/pause", control.pause),
            web.post("/resume", control.resume),
            web.post("/rate", control.rate),
            web.post("/advance", control.advance),
            web.get("/truth/book", control.book),
            web.get("/truth/trades", control.trades),
            web.get("/truth/instruments", control.instruments),
            web.get("/stats", control.stats),
            web.get("/endpoints", control.endpoints),
        ]
    )
    return application


@web.middleware
async def _tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except KeyError as error:
        return _json({"error": f"unknown: {error.args[0]}"}, status=404)
    except LookupError as error:
        return _json({"error": str(error)}, status=410)
    except (ValueError, msgspec.MsgspecError) as error:
        return _json({"error": str(error)}, status=400)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


class _Control:
    """One method per route."""

    def __init__(self, server: EmulatorServer) -> None:
        self._server = server

    async def inject(self, request: web.Request) -> web.Response:
        values = msgspec.json.decode(await request.read(), type=dict[str, Any])
        host = self._server.venues[_required(values.pop("venue", None), "venue")]
        applied = host.inject(msgspec.convert(values, Fault))
        return _json({"applied": applied})

    async def clear_faults(self, request: web.Request) -> web.Response:
        for host in self._hosts(request):
            await host.clear_faults()
        return _json({})

    async def faults(self, request: web.Request) -> web.Response:
        return _json(
            {
                host.venue_name: {"armed": host.injector.armed(), "fired": dict(host.injector.fired)}
                for host in self._hosts(request)
            }
        )

    async def pause(self, request: web.Request) -> web.Response:
        await self._server.pause()
        return _json({"steps": self._server.market.steps})

    async def resume(self, request: web.Request) -> web.Response:
        self._server.resume()
        return _json({})

    async def rate(self, request: web.Request) -> web.Response:
        self._server.set_rate(msgspec.json.decode(await request.read(), type=_Rate).rate)
        return _json({})

    async def advance(self, request: web.Request) -> web.Response:
        self._server.advance(msgspec.json.decode(await request.read(), type=_Advance).steps)
        return _json({"steps": self._server.market.steps})

    async def book(self, request: web.Request) -> web.Response:
        host, book = self._book(request)
        wanted = _integer(request, "update_id")
        limit = _integer(request, "limit")
        depth = book.depth() if wanted is None else book.at(wanted)
        text = host.emulator.level_text
        return _json(
            {
                "last_update_id": depth.update_id,
                "oldest_update_id": book.oldest_update_id,
                "bids": [text(book, level) for level in depth.bids[:limit]],
                "asks": [text(book, level) for level in depth.asks[:limit]],
            }
        )

    async def trades(self, request: web.Request) -> web.Response:
        host, book = self._book(request)
        first = _integer(request, "from_id")
        last = _integer(request, "to_id")
        chosen = [
            trade
            for trade in book.trades
            if (first is None or trade.trade_id >= first) and (last is None or trade.trade_id <= last)
        ]
        listed = []
        for trade in chosen[-MAX_TRADES:]:
            price, size = host.emulator.level_text(book, (trade.price, trade.size))
            listed.append(
                {
                    "id": trade.trade_id,
                    "price": price,
                    "size": size,
                    "aggressor": Aggressor(trade.aggressor).name,
                    "ts_event": trade.ts_event,
                }
            )
        return _json(
            {
                "first_id": book.first_trade_id,
                "last_id": book.trade_id,
                "count": book.trade_id - book.first_trade_id + 1,
                "trades": listed,
            }
        )

    async def instruments(self, request: web.Request) -> web.Response:
        return _json(self._server.venues[_venue(request)].emulator.instruments())

    async def stats(self, request: web.Request) -> web.Response:
        return _json(self._server.statistics())

    async def endpoints(self, request: web.Request) -> web.Response:
        return _json(self._server.endpoints)

    def _hosts(self, request: web.Request) -> list[VenueHost]:
        venue = request.query.get("venue")
        return list(self._server.venues.values()) if venue is None else [self._server.venues[venue]]

    def _book(self, request: web.Request) -> tuple[VenueHost, Book]:
        host = self._server.venues[_venue(request)]
        return host, host.emulator.book_of(_required(request.query.get("instrument"), "instrument"))


def _venue(request: web.Request) -> str:
    return _required(request.query.get("venue"), "venue")


def _required(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing")
    return value


def _integer(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}, not a number")
    return int(text)
