"""Make the four LMDBs that Caffe trains on from images and labels.

For programs and notebooks, functions with keyword arguments that return their results. The command
line (`__main__.py`) calls them and prints the text that `prose.py` makes of the results:

    from data_prep.table import take
    from data_prep.databases import write_databases
    take("data/own", "labels.csv", "photos", ["colour", "kind"])
    write_databases("data/own", "photos", size=64).reports["train"].written

Images and ontologies:
    sample.py        `make`: a small drawn set, to try all this without a download
    drawing.py       its images
    labels.py        `fetch`: the class lists that the authors published
    download.py      `download`: addresses -> images, checked; urls.py reads the lists of
                     addresses, fetch_shards.py runs img2dataset in a process of its own
    archives.py      `unpack_all`: archives -> images
    ontology.py      the published formats -> adjective-noun pairs (ANPs)
    graph.py         `describe`: an ontology's numbers and picture

Classes and lists:
    table.py         `take`: any table -> a data folder's classes and lists; rows.py reads it
    vso.py           `choose_classes`, `divide_images`: the same of VSO's ANP folders
    criteria.py      the paper's three criteria: which ANPs become classes, and why others do not
    images.py        a folder tree -> which image files there are, by ANP
    duplicates.py    files with the same bytes
    split.py         80/20 of each group -> train, test
    classes.py       classes/TASK.txt: line order is label order
    lists.py         convert_imageset's list format, bound to its classes

Databases:
    databases.py     `write_databases`: lists -> image and label databases, in step
    records.py       what goes into them; decode.py: a file -> pixels, or the reason why not
    lmdb_writer.py   one database, appended to and described; write_behind.py syncs it
    mean.py          the mean image
    progress.py      how far a database is written, to resume an interrupted run
    verify.py        `verify`: reads and checks them; sheet.py: some records with their labels
    reorder.py       `reorder`: the same records in a seed's order

Shared:
    folder.py        the layout of a data folder; its manifest and lock
    parallel.py      threads that keep order
    spreadsheet.py   CSV that a spreadsheet shows and does not compute
"""

import xresnet.basics  # noqa: F401  # sets OpenCV's limit
