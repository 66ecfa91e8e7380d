"""REST calls that have weights, and a budget of weights per minute: Binance's, of spot and futures markets.

Each answer carries the weight that its client has used in the current minute; who goes beyond the budget gets 429 with
``Retry-After``, who ignores that gets 418. An error is HTTP 400 and ``{"code":-1121,"msg":"Invalid symbol."}``::

    class AcmeRest(WeighedCalls[Product]):
        def __init__(self, products, host, options):
            super().__init__(products, host, options, {"/api/v3/ping": (lambda _: 1, lambda _: {})})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Generic, Protocol

from mdring.emulator.limits import Verdict, WeightBudget
from mdring.emulator.listing import AnyProduct
from mdring.emulator.text import compact
from mdring.emulator.venue import Host, RestRequest, RestResponse

BANNED: Final = 418
Call = tuple[Callable[[RestRequest], int], Callable[[RestRequest], Any]]
"""Its weight, and what answers it."""


class WeightLimits(Protocol):
    """The budget of each address."""

    @property
    def weight_per_minute(self) -> int:
        """So much, then 429."""

    @property
    def strikes_before_ban(self) -> int:
        """Answers 429 that are ignored within a minute."""

    @property
    def ban_s(self) -> int:
        """For so long it is 418."""


class CallError(Exception):
    """The call is answered by an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class WeighedCalls(ABC, Generic[AnyProduct]):
    """All REST calls of a venue, by path, over its products. ``answer`` is the only entry."""

    content_type: ClassVar[str] = "application/json"
    weight_headers: ClassVar[tuple[str, ...]] = ("X-MBX-USED-WEIGHT-1M",)

    def __init__(
        self, products: Mapping[str, AnyProduct], host: Host, limits: WeightLimits, calls: Mapping[str, Call]
    ) -> None:
        self.products = products
        self.host = host
        self.limits = limits
        self._calls = calls
        self._budgets: dict[str, WeightBudget] = {}

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        if request.path not in self._calls:
            return RestResponse(404, b"")
        weigh, call = self._calls[request.path]
        verdict = self._budget(request.client).spend(weigh(request), self.host.now_ns())
        headers = {"Content-Type": self.content_type, **dict.fromkeys(self.weight_headers, str(verdict.used))}
        if verdict.status != 200:
            headers["Retry-After"] = str(verdict.retry_after_s)
            return _response(verdict.status, {"code": -1003, "msg": self._refusal(verdict)}, headers)
        try:
            return _response(200, call(request), headers)
        except CallError as error:
            return _response(400, {"code": error.code, "msg": str(error)}, headers)

    @abstractmethod
    def too_much(self) -> str:
        """What is said with 429."""

    @abstractmethod
    def banned(self, until_ms: int) -> str:
        """What is said with 418."""

    def product(self, request: RestRequest) -> AnyProduct:
        """The one that a call names. Raises CallError."""
        symbol = request.query.get("symbol", "")
        if not symbol:
            raise CallError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if symbol not in self.products:
            raise CallError(-1121, "Invalid symbol.")
        return self.products[symbol]

    def now_ms(self) -> int:
        """The venue's time."""
        return self.host.now_ns() // 1_000_000

    def _budget(self, client: str) -> WeightBudget:
        if client not in self._budgets:
            limits = self.limits
            self._budgets[client] = WeightBudget(limits.weight_per_minute, limits.strikes_before_ban, limits.ban_s)
        return self._budgets[client]

    def _refusal(self, verdict: Verdict) -> str:
        if verdict.status == BANNED:
            return self.banned(self.now_ms() + verdict.retry_after_s * 1000)
        return self.too_much()


def _response(status: int, value: Any, headers: Mapping[str, str]) -> RestResponse:
    return RestResponse(status, compact(value).encode(), headers)
