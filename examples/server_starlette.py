"""A page of heart rates in Starlette, or in a part of a FastAPI application: form in, JSON out.

    pip install starlette uvicorn python-multipart
    uvicorn --app-dir=examples server_starlette:app
    curl --form video=@my.mp4 http://127.0.0.1:8000/

A reading computes for seconds, so a thread does it and the event loop goes on; at most two at a time. Put a
server that bounds uploads and knows users before it. `app.mount("/pulse", server_starlette.app)` makes it a
part of a larger application.
"""

from __future__ import annotations

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import sspd_jax
from sspd_jax.errors import UserError

AT_ONCE = anyio.CapacityLimiter(2)
HOW = "send a form with the video: curl --form video=@my.mp4 URL"


async def read(request: Request) -> JSONResponse:
    """Read the uploaded video; what is no video gets a sentence."""
    if not request.headers.get("content-type", "").startswith("multipart/"):
        return JSONResponse({"error": HOW}, 415)
    async with request.form(max_files=1, max_fields=1) as form:
        video = form.get("video")
        if not isinstance(video, UploadFile):
            return JSONResponse({"error": HOW}, 415)
        try:
            async with AT_ONCE:
                estimate = await run_in_threadpool(sspd_jax.read, video)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
    return JSONResponse(
        {
            "heart_rate_bpm": estimate.heart_rate_bpm,
            "interval_bpm": estimate.interval_bpm,
            "confidence": estimate.confidence,
            "why": estimate.why,
        }
    )


app = Starlette(routes=[Route("/", read, methods=["POST"])])
