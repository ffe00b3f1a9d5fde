"""From an ontology and folders of images to the four LMDBs that Caffe trains on.

One role a module, each stage reading what the one before it left in the data folder:

    ontology.py   the published formats -> adjective-noun pairs (ANPs)
    images.py     a folder tree -> which image files there are, by ANP
    filter.py     the paper's three criteria -> which ANPs become classes, and why others do not
    table.py      any table of paths and labels -> classes and lists, in place of the three above
    classes.py    classes/TASK.txt: line order is label order
    split.py      80/20 per ANP -> train.txt, test.txt
    lists.py      convert_imageset's list format, bound to its classes
    decode.py     a file -> pixels, or the reason why not
    lmdb_writer.py  lists -> image and label databases, record for record together
    verify.py     the databases read back
    sample.py     a small drawn image set, to try all this without a download
    reorder.py    the same records in a seed's order
    spreadsheet.py  CSV that a spreadsheet shows and does not compute
    parallel.py   threads that keep order
    folder.py     where everything lies in a data folder; its manifest and lock
"""
