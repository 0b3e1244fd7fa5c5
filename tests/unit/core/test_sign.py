"""Standard Webhooks: our signatures are what the specification says, and only those are accepted."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core import sign
from howdah.core.errors import SignatureInvalid

# The vector that the specification's own libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_AT_S = 1_614_265_330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER_SECRET = "whsec_" + base64.b64encode(b"another key of thirty-two bytes!").decode()

message_ids = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="_-"), min_size=1)


def verify(**changes: object) -> None:
    """Verify the vector, with some of it changed."""
    message = {
        "message_id": MESSAGE_ID,
        "timestamp": str(SENT_AT_S),
        "signature": SIGNATURE,
        "body": BODY,
        "now_s": SENT_AT_S,
    }
    sign.verify(changes.pop("secrets", SECRET), **{**message, **changes})  # type: ignore[arg-type]


def test_sign_vector_of_specification_gives_its_signature() -> None:
    """A receiver with any library of the specification accepts what we send."""
    signature = sign.sign(SECRET, MESSAGE_ID, SENT_AT_S, BODY)

    assert signature == SIGNATURE


def test_verify_vector_of_specification_passes() -> None:
    """Our own verifier accepts what the specification's libraries sign."""
    verify()


def test_sign_two_secrets_gives_one_signature_each() -> None:
    """While a secret is replaced, a receiver that knows either of them can verify."""
    signature = sign.sign((OTHER_SECRET, SECRET), MESSAGE_ID, SENT_AT_S, BODY)

    assert signature.split(" ")[1] == SIGNATURE
    verify(signature=signature, secrets=SECRET)
    verify(signature=signature, secrets=OTHER_SECRET)


def test_verify_several_secrets_accepts_any() -> None:
    """A receiver may hold the old and the new secret at once."""
    verify(secrets=(OTHER_SECRET, SECRET))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"body": BODY + b" "}, id="longer body"),
        pytest.param({"body": b'{"test":2432232314}'}, id="body without its space"),
        pytest.param({"body": b""}, id="no body"),
        pytest.param({"message_id": MESSAGE_ID + "x"}, id="other id"),
        pytest.param({"message_id": ""}, id="no id"),
        pytest.param({"message_id": f"{MESSAGE_ID}.{SENT_AT_S}"}, id="full stop in the id"),
        pytest.param({"message_id": "\ud800"}, id="id that is not text"),
        pytest.param({"timestamp": str(SENT_AT_S + 1)}, id="other timestamp"),
        pytest.param({"timestamp": f"0{SENT_AT_S}"}, id="timestamp spelt otherwise"),
        pytest.param({"timestamp": f" {SENT_AT_S}"}, id="timestamp after a space"),
        pytest.param({"timestamp": f"+{SENT_AT_S}"}, id="timestamp with a sign"),
        pytest.param({"timestamp": f"{SENT_AT_S}.0"}, id="timestamp with a fraction"),
        pytest.param({"timestamp": str(SENT_AT_S).replace("1", "\u0661")}, id="timestamp in Arabic digits"),
        pytest.param({"timestamp": "9" * 5_000}, id="timestamp of 5,000 digits"),
        pytest.param({"timestamp": "nan"}, id="timestamp not a number"),
        pytest.param({"timestamp": ""}, id="no timestamp"),
        pytest.param({"signature": ""}, id="no signature"),
        pytest.param({"signature": " "}, id="blank signature"),
        pytest.param({"signature": "v1"}, id="version only"),
        pytest.param({"signature": "v1,"}, id="prefix only"),
        pytest.param({"signature": SIGNATURE[:8]}, id="truncated signature"),
        pytest.param({"signature": SIGNATURE[:-1]}, id="signature without its padding"),
        pytest.param({"signature": SIGNATURE.removeprefix("v1,")}, id="signature without its version"),
        pytest.param({"signature": SIGNATURE.replace("v1", "v1a")}, id="signature of another scheme"),
        pytest.param({"signature": SIGNATURE.replace("v1", "v2")}, id="signature of an unknown version"),
        pytest.param({"signature": SIGNATURE + "\ud800"}, id="signature that is not text"),
        pytest.param({"secrets": OTHER_SECRET}, id="other secret"),
        pytest.param({"now_s": SENT_AT_S + 300.5}, id="too old"),
        pytest.param({"now_s": SENT_AT_S - 300.5}, id="from the future"),
    ],
)
def test_verify_altered_message_is_refused(changes: dict[str, object]) -> None:
    """Whatever of a message is altered, missing, cut or stale, it is refused."""
    with pytest.raises(SignatureInvalid):
        verify(**changes)


def test_verify_shifted_parts_are_refused() -> None:
    """A signature for one message does not pass for another whose parts, joined, read the same."""
    signature = sign.sign(SECRET, "a", SENT_AT_S - 1, f"{SENT_AT_S}.body".encode())

    with pytest.raises(SignatureInvalid):
        verify(message_id=f"a.{SENT_AT_S - 1}", signature=signature, body=b"body")


@pytest.mark.parametrize("now_s", [SENT_AT_S - 300, SENT_AT_S + 299.9, SENT_AT_S + 300])
def test_verify_within_tolerance_passes(now_s: float) -> None:
    """Clocks may differ by five minutes either way."""
    verify(now_s=now_s)


def test_verify_among_foreign_signatures_finds_ours() -> None:
    """Signatures of other schemes and of retired secrets beside ours do no harm."""
    foreign = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="

    verify(signature=f"{foreign} {foreign.replace('v1', 'v1a')} {SIGNATURE} {foreign}")


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsk_" + SECRET.removeprefix("whsec_"),
        "whsec_not base64!",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSé",
    ],
)
def test_sign_malformed_secret_is_refused_without_showing_it(secret: str) -> None:
    """A secret that is empty, too short or not base64 signs nothing, and no error repeats it."""
    with pytest.raises(ValueError, match="secret") as caught:
        sign.sign(secret, MESSAGE_ID, SENT_AT_S, BODY)

    shown = secret.removeprefix("whsec_")
    assert not shown or shown not in str(caught.value)
    with pytest.raises(ValueError, match="secret"):
        verify(secrets=secret)


def test_sign_without_secrets_is_refused() -> None:
    """Nothing leaves unsigned because a tenant has no secret, and nothing verifies without one."""
    with pytest.raises(ValueError, match="secret"):
        sign.sign((), MESSAGE_ID, SENT_AT_S, BODY)
    with pytest.raises(ValueError, match="secret"):
        verify(secrets=())


def test_sign_id_with_full_stop_is_refused() -> None:
    """An id cannot be chosen so that it runs into the timestamp."""
    with pytest.raises(ValueError, match="full stop"):
        sign.sign(SECRET, "a.1", SENT_AT_S, BODY)


def test_make_secret_is_of_the_specified_form_and_new_each_time() -> None:
    """A new secret has the prefix and 32 bytes, and no two are alike."""
    drawn = {sign.make_secret() for _ in range(100)}

    assert len(drawn) == 100
    for secret in drawn:
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == sign.SECRET_BYTES


@given(message_ids, st.integers(0, 10**12 - 1), st.binary(), st.binary(min_size=24, max_size=64))
def test_verify_what_was_signed_passes(message_id: str, sent_at_s: int, body: bytes, key: bytes) -> None:
    """Every message that we sign verifies, whatever its bytes are."""
    secret = "whsec_" + base64.b64encode(key).decode()
    signature = sign.sign(secret, message_id, sent_at_s, body)

    sign.verify(
        secret, message_id=message_id, timestamp=str(sent_at_s), signature=signature, body=body, now_s=sent_at_s
    )


@given(st.binary(min_size=1), st.data())
def test_verify_flipped_bit_is_refused(body: bytes, data: st.DataObject) -> None:
    """One flipped bit anywhere in the body breaks the signature."""
    signature = sign.sign(SECRET, MESSAGE_ID, SENT_AT_S, body)
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    altered = bytearray(body)
    altered[at // 8] ^= 1 << at % 8

    with pytest.raises(SignatureInvalid):
        verify(signature=signature, body=bytes(altered))


@given(st.text())
def test_verify_any_other_header_is_refused(signature: str) -> None:
    """No text in place of a signature passes, and none makes the verifier fail in another way."""
    with pytest.raises(SignatureInvalid):
        verify(signature=signature, body=b"not what was signed")
