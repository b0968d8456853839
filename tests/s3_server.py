"""A small S3 of this machine, for tests: nothing leaves it."""

import contextlib
import logging
from collections.abc import Iterator

import pytest

moto = pytest.importorskip("moto.server", reason="moto is not installed (pip install 'moto[server]')")
pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 'lightsheet[cloud]')")

KEY, SECRET = "AKIDTESTKEY", "a-very-secret-key"


@contextlib.contextmanager
def s3_server(patch: pytest.MonkeyPatch, *buckets: str) -> Iterator[str]:
    """Serve empty buckets, reached by the environment's variables as any S3 is; its address."""
    import boto3
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    try:
        yield address
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
