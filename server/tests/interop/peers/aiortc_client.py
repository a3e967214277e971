"""aiortc as a publisher, with the bundle policy that the options name, or as a viewer."""

import asyncio
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "aiortc"))

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection  # noqa: E402

from client import Client  # noqa: E402
from media import CountingVideo, Tone  # noqa: E402


async def main(options):
    video, tone = CountingVideo(), Tone()
    async with Client() as client:
        client.pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy(options["bundle"])))
        if options["role"] == "watch":
            client.receive()
        elif options["codec"]:
            client.send(tone, video, codec=options["codec"])
        else:
            for track in (tone, video):
                client.pc.addTransceiver(track, direction="sendonly")
        await client.join(options["url"])
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line == "figures\n":
                print(json.dumps({"frames": video.number, "audio": tone.samples}), flush=True)
        await client.leave()


asyncio.run(main(json.loads(sys.argv[1])))
