"""WebDataset shards in small."""

import tarfile

from PIL import Image


def web_shards(root, images: int = 10) -> str:
    """Write two WebDataset shards of grey images; the label is the place modulo 4."""
    import io
    import json

    root.mkdir()
    for shard in range(2):
        with tarfile.open(root / f"grey-{shard:04d}.tar", "w") as tar:
            for i in range(shard * images // 2, (shard + 1) * images // 2):
                buffer = io.BytesIO()
                Image.new("RGB", (20, 20), (10 * i,) * 3).save(buffer, "PNG")
                for suffix, content in (("png", buffer.getvalue()), ("cls", str(i % 4).encode())):
                    info = tarfile.TarInfo(f"{i:04d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (root / "info.json").write_text(json.dumps({}))
    return "grey-{0000..0001}.tar|" + str(images)
