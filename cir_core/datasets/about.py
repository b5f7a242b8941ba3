"""What a user must know of each dataset: licence, layout, how to obtain it, published counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Counts:
    """Of one split: queries and gallery images per category."""

    queries: Mapping[str, int]
    gallery: Mapping[str, int]


@dataclass(frozen=True)
class About:
    """``layout`` is relative to the data root; ``counts`` by split, where published.

    ``images`` says how to obtain them: nothing is ever downloaded for the user.
    ``distinct_images`` is the number of different ids in all splits of ``counts`` together.
    """

    title: str
    licence: str
    source_url: str
    layout: str
    images: str
    counts: Mapping[str, Counts] = field(default_factory=dict)
    distinct_images: int | None = None


DEMO = About(
    title="drawn garments in Fashion-IQ's format",
    licence="MIT, as this project",
    source_url="drawn by cir-pipeline itself",
    layout="nothing: drawn into the store on first use",
    images="drawn, 36,000 for train, 1,944 each for val and test",
    counts={
        "train": Counts(
            {"dress": 16_000, "shirt": 16_000, "toptee": 16_000},
            {"dress": 12_000, "shirt": 12_000, "toptee": 12_000},
        ),
        "val": Counts(
            {"dress": 432, "shirt": 432, "toptee": 432},
            {"dress": 648, "shirt": 648, "toptee": 648},
        ),
        "test": Counts(
            {"dress": 432, "shirt": 432, "toptee": 432},
            {"dress": 648, "shirt": 648, "toptee": 648},
        ),
    },
    distinct_images=39_888,
)

FASHION_IQ = About(
    title="Fashion-IQ",
    licence="annotations CDLA (see their README); pictures belong to their sellers",
    source_url="https://github.com/XiaoxiaoGuo/fashion-iq",
    layout="captions/cap.{dress,shirt,toptee}.{train,val,test}.json\n"
    "image_splits/split.{dress,shirt,toptee}.{train,val,test}.json\n"
    "images/<id>.jpg or .png",
    images="many of the original links are dead: a mirror with 74,381 images is complete",
    counts={
        "train": Counts(
            {"dress": 5985, "shirt": 5988, "toptee": 6027},
            {"dress": 11452, "shirt": 19036, "toptee": 16121},
        ),
        "val": Counts(
            {"dress": 2017, "shirt": 2038, "toptee": 1961},
            {"dress": 3817, "shirt": 6346, "toptee": 5373},
        ),
        "test": Counts(
            {"dress": 2024, "shirt": 2038, "toptee": 2056},
            {"dress": 3818, "shirt": 6346, "toptee": 5374},
        ),
    },
    distinct_images=74_381,
)

CIRR = About(
    title="CIRR, release rc2",
    licence="annotations MIT; pictures are NLVR2's, on request from its authors",
    source_url="https://github.com/Cuberick-Orion/CIRR",
    layout="cirr/captions/cap.rc2.{train,val,test1}.json\n"
    "cirr/image_splits/split.rc2.{train,val,test1}.json\n"
    "train/ dev/ test1/ (or below cirr/img_raw/) with .png or .jpg",
    images="ask NLVR2's authors for access, as the CIRR repository describes",
    counts={
        "train": Counts({"cirr": 28225}, {"cirr": 16939}),
        "val": Counts({"cirr": 4181}, {"cirr": 2297}),
        "test": Counts({"cirr": 4148}, {"cirr": 2315}),
    },
    distinct_images=21_551,
)

CIRCO = About(
    title="CIRCO",
    licence="annotations CC BY-NC 4.0; pictures as COCO",
    source_url="https://github.com/miccunifi/CIRCO",
    layout="annotations/{val,test}.json\n"
    "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json\n"
    "COCO2017_unlabeled/unlabeled2017/<12 digits>.jpg",
    images="COCO's unlabeled2017.zip (19 GB, 123,403 images) from cocodataset.org",
    counts={
        "val": Counts({"circo": 220}, {"circo": 123403}),
        "test": Counts({"circo": 800}, {"circo": 123403}),
    },
    distinct_images=123_403,
)

SHOES = About(
    title="Shoes",
    licence="annotations MIT; pictures are the attribute-discovery dataset's",
    source_url="https://github.com/XiaoxiaoGuo/fashion-retrieval",
    layout="relative_captions_shoes.json, train_im_names.txt, eval_im_names.txt\n"
    "womens_boots/{0,1}/img_womens_boots_1.jpg and so on (also below attributedata/),\n"
    "or all pictures in images/",
    images="the attribute-discovery dataset (attributedata), linked from the repository",
    counts={
        "train": Counts({"shoes": 8990}, {"shoes": 10000}),
        "val": Counts({"shoes": 1761}, {"shoes": 4658}),
    },
    distinct_images=14_658,
)

OWN = About(
    title="a folder of your own, given as a path: --dataset ./catalogue",
    licence="yours",
    source_url="docs/own-data.md describes the files",
    layout="queries.csv, .jsonl or .parquet with the columns reference and text, and perhaps\n"
    "target or targets, category, query_id\n"
    "any folders of .jpg, .png, .webp, .gif, .bmp, .tif or .ppm\n"
    "cir-dataset.toml, if anything is to be said about these",
    images="all below the folder; an image's id is its path there",
)
