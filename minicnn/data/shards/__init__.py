"""Packed data sets: images decoded and resized once, so that training reads a few large files and never resizes.

A packed set is a folder. Its integers are little-endian, its texts UTF-8:

    shard-00000.bin ...     the images, in the order of the source, about a gigabyte in each
    minicnn-pack.json       the index file; written last, so a folder that has it is complete. A JSON object of
                                format "minicnn packed images", version 1, classes, images (their number), counts (of each class),
                                settings (format, side, quality, shard_bytes), source, skipped (a list of [index, name, reason]),
                                shards (a list of {bytes, images, table: the offset of the table}), and
                                fingerprint: the SHA-256 of this object without it, as sorted JSON, and of all tables

A shard is complete in itself, so that packing resumes after the last complete one:

    records     each is an image, then its name in the source. An image is a JPEG file (format "jpeg"), or its pixels, H*W*C bytes in
                the order (H, W, C) ("raw"); C is 3 for RGB, 1 for grey
    table       for each record a row of 32 bytes, INDEX_DTYPE; its crc is the CRC-32 of the row's other 28 bytes and then the record
    metadata    JSON: the settings and classes, first and next (its range of the source: first <= index < next), skipped
    footer      24 bytes: "minicnnp", int64 offset of the table, uint32 length of the metadata, uint32 CRC-32 of table and metadata

A valid set has no other files. Opening it reads only minicnn-pack.json and the sizes of the shards.
"""

from minicnn.data.shards.reader import Packed, verify
from minicnn.data.shards.writer import pack

__all__ = ["pack", "Packed", "verify"]
