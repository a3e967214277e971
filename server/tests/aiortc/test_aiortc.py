"""aiortc publishes to the server and watches from it."""

import asyncio

import pytest

from client import Client, request, until
from media import TONE_HZ, CountingVideo, Tone, pitch, read

STAGES = ["signaling", "ice", "dtls", "fingerprint", "srtp", "media"]
FRAMES = 90
SOUNDS = 100


def whip(server, stream):
    return f"{server.http}/whip/{stream}"


def whep(server, stream):
    return f"{server.http}/whep/{stream}"


async def publish(server, stream, client, codec="VP8"):
    client.send(CountingVideo(), Tone(), codec=codec)
    await client.join(whip(server, stream))
    await until("the publisher's media", lambda: stage(server, stream, "publisher", "media") == "done")


def stage(server, stream, role, name):
    sessions = server.sessions(stream, role)
    return sessions and next(each["state"] for each in sessions[-1]["stages"] if each["stage"] == name)


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_video_and_audio_arrive_whole(server, codec):
    async def scenario():
        stream = f"aiortc-{codec.lower()}"
        async with Client() as publisher, Client() as viewer:
            await publish(server, stream, publisher, codec)
            viewer.receive()
            await viewer.join(whep(server, stream))
            pictures, sounds = await asyncio.gather(viewer.take("video", FRAMES), viewer.take("audio", SOUNDS))

            numbers = [read(picture) for picture in pictures]
            assert numbers == list(range(numbers[0], numbers[0] + FRAMES)), "frames are missing, doubled or out of order"
            # The first audio frames may stem from the decoder's start.
            assert pitch(sounds[SOUNDS // 2 :]) == pytest.approx(TONE_HZ, rel=0.02)

            for client in (publisher, viewer):
                assert client.transport.state == "connected"
                assert client.srtp_profile in ("SRTP_AEAD_AES_128_GCM", "SRTP_AEAD_AES_256_GCM")
            for role in ("publisher", "viewer"):
                await until(f"the {role}'s ledger", lambda: stage(server, stream, role, "media") == "done")
                [session] = server.sessions(stream, role)
                assert [(each["stage"], each["state"]) for each in session["stages"]] == [(name, "done") for name in STAGES]
            for receiver in viewer.pc.getReceivers():
                inbound = [each for each in (await receiver.getStats()).values() if each.type == "inbound-rtp"]
                assert inbound and all(each.packetsLost == 0 for each in inbound)

            assert await viewer.leave() == 200
            assert await publisher.leave() == 200

    asyncio.run(scenario())


# F-24, SDP-29
@pytest.mark.parametrize("policy", ["balanced", "max-compat", "max-bundle"])
def test_every_bundle_policy_finds_the_candidates(server, policy):
    async def scenario():
        stream = f"aiortc-{policy}"
        async with Client(policy) as publisher, Client(policy) as viewer:
            await publish(server, stream, publisher)
            viewer.receive()
            await viewer.join(whep(server, stream))
            await asyncio.gather(viewer.take("video", 5), viewer.take("audio", 5))
            for client in (publisher, viewer):
                assert len({each.receiver.transport for each in client.pc.getTransceivers()}) == 1, "one transport for all"
            assert await viewer.leave() == 200
            assert await publisher.leave() == 200

    asyncio.run(scenario())


def test_delete_closes_the_secure_transport_of_the_client(server):
    # WHIP-14
    async def scenario():
        async with Client() as publisher:
            await publish(server, "aiortc-delete", publisher)
            assert await publisher.leave() == 200
            await until("close_notify to arrive", lambda: publisher.transport.state == "closed")
            [session] = server.sessions("aiortc-delete", "publisher")
            assert (session["state"], session["reason"]) == ("closed", "deleted")

    asyncio.run(scenario())


def test_a_client_that_closes_without_delete_is_gone_at_once(server):
    # WHIP-15: the DELETE that follows is still answered well.
    async def scenario():
        async with Client() as publisher:
            await publish(server, "aiortc-close", publisher)
            await publisher.pc.close()

            def ended():
                [session] = server.sessions("aiortc-close", "publisher")
                return session["state"] == "closed" and session["reason"] == "peer-closed"

            await until("the server to notice close_notify", ended)
            assert await publisher.leave() == 200

    asyncio.run(scenario())


def test_an_unknown_session_is_not_found(server):
    async def scenario():
        async with Client() as publisher:
            await publish(server, "aiortc-unknown", publisher)
            wrong = publisher.session[:-4] + ("aaaa" if publisher.session[-4:] != "aaaa" else "bbbb")
            status, headers, _ = await request("DELETE", wrong)
            assert (status, headers.get_content_type()) == (404, "application/problem+json")
            assert await publisher.leave() == 200

    asyncio.run(scenario())
