"""aiortc as a WHIP publisher and as a WHEP viewer."""

import asyncio
import urllib.error
import urllib.parse
import urllib.request

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription

HTTP_SECONDS = 5


async def request(method, url, body=None, headers=None):
    """One HTTP request; returns status, headers and body whatever the status is."""

    def send():
        data = None if body is None else body.encode()
        outgoing = urllib.request.Request(url, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(outgoing, timeout=HTTP_SECONDS) as reply:
                return reply.status, reply.headers, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    return await asyncio.to_thread(send)


async def until(what, condition, seconds=10):
    """Waits until `condition()` holds; an error that names it otherwise."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {seconds} s in vain for {what}"
        await asyncio.sleep(0.02)


class Client:
    """One session. Use with `async with`, which closes the peer connection."""

    def __init__(self, bundle_policy="balanced"):
        self.pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy(bundle_policy)))
        self.tracks = {}
        self.session = None
        self.pc.on("track", lambda track: self.tracks.__setitem__(track.kind, track))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.pc.close()

    def send(self, *tracks, codec):
        for track in tracks:
            transceiver = self.pc.addTransceiver(track, direction="sendonly")
            if track.kind == "video":
                known = RTCRtpSender.getCapabilities("video").codecs
                transceiver.setCodecPreferences([each for each in known if each.mimeType in (f"video/{codec}", "video/rtx")])

    def receive(self):
        for kind in ("video", "audio"):
            self.pc.addTransceiver(kind, direction="recvonly")

    async def join(self, endpoint):
        """POSTs the offer and connects."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        headers = {"Content-Type": "application/sdp"}
        status, reply, answer = await request("POST", endpoint, self.pc.localDescription.sdp, headers)
        assert status == 201, f"{status}: {answer}"
        assert reply.get_content_type() == "application/sdp"
        self.session = urllib.parse.urljoin(endpoint, reply["Location"])
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await until("the connection", lambda: self.pc.connectionState == "connected")

    async def leave(self):
        """DELETEs the session and returns the status."""
        status, _, _ = await request("DELETE", self.session)
        return status

    @property
    def transport(self):
        return self.pc.getTransceivers()[0].receiver.transport

    @property
    def srtp_profile(self):
        # aiortc shows the profile nowhere else.
        return self.transport._ssl.get_selected_srtp_profile().decode()

    async def take(self, kind, count, seconds=15):
        """The next `count` decoded frames."""
        await until(f"the {kind} track", lambda: kind in self.tracks)
        track = self.tracks[kind]
        return await asyncio.wait_for(_take(track, count), seconds)


async def _take(track, count):
    return [await track.recv() for _ in range(count)]
