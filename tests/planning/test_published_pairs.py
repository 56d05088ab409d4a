"""The table of pairs with published figures says what the metafiles say."""
import re

import yaml

from mmfeatdistill.planning.methods import methods
from tests.helpers.runs import CONFIGS

PAGE = (CONFIGS.parent / 'docs' / 'one_command.md').read_text()


def test_the_table_of_pairs_agrees_with_the_metafiles():
    table = PAGE.partition('<!-- pairs:')[2].partition('<!-- end of pairs -->')[0]
    rows = [line for line in table.splitlines() if line.startswith('| ') and '`' in line]
    assert len(rows) >= 10
    for row in rows:
        student, teacher, option = re.findall('`(.*?)`', row)
        method, config = option.split()[1], re.search(r'\]\(\.\./(configs/.*?)\)', row)[1]
        entry, = (model for model in yaml.safe_load((CONFIGS / method / 'metafile.yml').read_text())['Models']
                  if model['Config'] == config)
        told, published = entry['Metadata'], entry['Metadata']['Published']
        assert method in methods() and (told['Student'], told['Teacher']) == (student, teacher)
        metric = next(iter(published))
        assert f'| {published[f"{metric} alone"]} -> {published[metric]} {metric} |' in row, row
        assert f'({published["Source"]})' in row
