"""Toxiproxy's HTTP API, version 2: clients of Toxiproxy can control these faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from understudy.loadtest.faultproxy.proxy import Proxy
from understudy.loadtest.faultproxy.toxics import Toxic, ToxicError

VERSION = "2.9.0"
"""The version of Toxiproxy whose API this is."""


class ProxyRegistry:
    """The proxies, by name."""

    def __init__(self) -> None:
        self.proxies: dict[str, Proxy] = {}

    async def create(self, data: dict[str, Any]) -> Proxy:
        """Create a proxy from the API's JSON. Raises ApiError."""
        name, upstream = data.get("name"), data.get("upstream")
        if not name or not isinstance(name, str):
            raise ApiError(400, "missing required field: name")
        if not upstream or not isinstance(upstream, str) or ":" not in upstream:
            raise ApiError(400, "missing required field: upstream")
        if name in self.proxies:
            raise ApiError(409, "proxy already exists")
        proxy = Proxy(name, str(data.get("listen") or "127.0.0.1:0"), upstream)
        if data.get("enabled", True):
            await _start(proxy)
        self.proxies[name] = proxy
        return proxy

    def get(self, name: str) -> Proxy:
        """The proxy ``name``. Raises ApiError if there is none."""
        if name not in self.proxies:
            raise ApiError(404, "proxy not found")
        return self.proxies[name]

    async def reset(self) -> None:
        """Enable every proxy and remove all toxics. Raises ApiError."""
        for proxy in self.proxies.values():
            proxy.toxics.clear()
            await _start(proxy)

    async def close(self) -> None:
        """Stop and remove all proxies."""
        for proxy in self.proxies.values():
            await proxy.stop()
        self.proxies.clear()


class ApiError(Exception):
    """An error response of the API."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def _start(proxy: Proxy) -> None:
    try:
        await proxy.start()
    except (OSError, ValueError) as error:
        raise ApiError(500, f"{proxy.listen}: {error}") from error


def app_of(registry: ProxyRegistry) -> Starlette:
    """The API as an ASGI application."""

    async def version(_: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def listed(_: Request) -> Response:
        return JSONResponse({name: proxy.to_dict() for name, proxy in registry.proxies.items()})

    async def created(request: Request) -> Response:
        return JSONResponse((await registry.create(await _json(request))).to_dict(), 201)

    async def populate(request: Request) -> Response:
        data = await request.json()
        if not isinstance(data, list):
            raise ApiError(400, "bad request body")
        for one in data:
            old = registry.proxies.pop(str(one.get("name")), None)
            if old is not None:
                await old.stop()
            await registry.create(one)
        return JSONResponse({"proxies": [p.to_dict() for p in registry.proxies.values()]}, 201)

    async def one(request: Request) -> Response:
        return JSONResponse(registry.get(request.path_params["name"]).to_dict())

    async def change(request: Request) -> Response:
        proxy, data = registry.get(request.path_params["name"]), await _json(request)
        moved = any(
            data.get(k, getattr(proxy, k)) != getattr(proxy, k) for k in ("listen", "upstream")
        )
        if moved or data.get("enabled") is False:
            await proxy.stop()
            proxy.listen = str(data.get("listen", proxy.listen))
            proxy.upstream = str(data.get("upstream", proxy.upstream))
        if data.get("enabled", True):
            await _start(proxy)
        return JSONResponse(proxy.to_dict())

    async def remove(request: Request) -> Response:
        proxy = registry.get(request.path_params["name"])
        await proxy.stop()
        del registry.proxies[proxy.name]
        return Response(status_code=204)

    async def toxics(request: Request) -> Response:
        proxy = registry.get(request.path_params["name"])
        return JSONResponse([toxic.to_dict() for toxic in proxy.toxics])

    async def add_toxic(request: Request) -> Response:
        proxy = registry.get(request.path_params["name"])
        toxic = Toxic.parse(await _json(request))
        if any(other.name == toxic.name for other in proxy.toxics):
            raise ApiError(409, "toxic already exists")
        proxy.toxics.append(toxic)
        return JSONResponse(toxic.to_dict())

    def _toxic(request: Request) -> tuple[Proxy, Toxic]:
        proxy = registry.get(request.path_params["name"])
        for toxic in proxy.toxics:
            if toxic.name == request.path_params["toxic"]:
                return proxy, toxic
        raise ApiError(404, "toxic not found")

    async def one_toxic(request: Request) -> Response:
        return JSONResponse(_toxic(request)[1].to_dict())

    async def change_toxic(request: Request) -> Response:
        _, toxic = _toxic(request)
        toxic.update(await _json(request))
        return JSONResponse(toxic.to_dict())

    async def remove_toxic(request: Request) -> Response:
        proxy, toxic = _toxic(request)
        proxy.toxics.remove(toxic)
        return Response(status_code=204)

    async def reset(_: Request) -> Response:
        await registry.reset()
        return Response(status_code=204)

    def guarded(call: Callable[[Request], Awaitable[Response]]) -> Callable[..., Any]:
        async def answer(request: Request) -> Response:
            try:
                return await call(request)
            except ApiError as error:
                return JSONResponse({"error": str(error), "status": error.status}, error.status)
            except ToxicError as error:
                return JSONResponse({"error": str(error), "status": 400}, 400)
            except ValueError as error:
                return JSONResponse({"error": f"bad request body: {error}", "status": 400}, 400)

        return answer

    toxic_path = "/proxies/{name}/toxics/{toxic}"
    routes = [
        ("/version", "GET", version),
        ("/proxies", "GET", listed),
        ("/proxies", "POST", created),
        ("/populate", "POST", populate),
        ("/reset", "POST", reset),
        ("/proxies/{name}", "GET", one),
        ("/proxies/{name}", "POST", change),
        ("/proxies/{name}", "PATCH", change),
        ("/proxies/{name}", "DELETE", remove),
        ("/proxies/{name}/toxics", "GET", toxics),
        ("/proxies/{name}/toxics", "POST", add_toxic),
        (toxic_path, "GET", one_toxic),
        (toxic_path, "POST", change_toxic),
        (toxic_path, "PATCH", change_toxic),
        (toxic_path, "DELETE", remove_toxic),
    ]
    return Starlette(routes=[Route(path, guarded(call), methods=[m]) for path, m, call in routes])


async def _json(request: Request) -> dict[str, Any]:
    data = await request.json()
    if not isinstance(data, dict):
        raise ApiError(400, "bad request body")
    return data
