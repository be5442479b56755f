"""A data set decoded and scaled once, so that training reads a few large files instead of a million small ones, and never scales.

A packed set is a folder. Its numbers are little-endian, its texts UTF-8:

    shard-00000.bin ...     the images, in the order of the source, about a gigabyte in each
    minicnn-pack.json       what the set is; written last, so that a folder with this file is complete. An object of
                                format "minicnn packed images", version 1, classes, images (how many), counts (of each class),
                                settings (format, side, quality, shard_bytes), source, skipped (a list of [number, name, reason]),
                                shards (a list of {bytes, images, table: where it begins}), and
                                fingerprint: the SHA-256 of this object without it, as sorted JSON, and of all tables

A shard is complete in itself, so that packing can go on after the last complete one:

    records     each is an image, then its name in the source. An image is a JPEG file (format "jpeg"), or its pixels, H*W*C bytes in
                the order (H, W, C) ("raw"); C is 3 for RGB, 1 for grey
    table       for each record 32 bytes, a ROW; its crc is the CRC-32 of the row's other 28 bytes and then the record
    about       JSON: the settings and classes, first and next (its part of the source: first <= number < next), skipped
    end         24 bytes: "minicnnp", int64 where the table begins, uint32 length of `about`, uint32 CRC-32 of table and about

A sound set has no other files. Nothing of it is read when it is opened but minicnn-pack.json and the sizes of the shards.
"""

from minicnn.data.packed.checking import verify
from minicnn.data.packed.packing import pack
from minicnn.data.packed.reading import Packed

__all__ = ["pack", "Packed", "verify"]
