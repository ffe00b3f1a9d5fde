"""From nets and LMDBs to the paper's results, with real Caffe.

python -m xresnet table2 --smoke --data DATA --out OUT
"""
