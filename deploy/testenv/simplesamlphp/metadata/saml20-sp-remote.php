<?php
// The service providers, read from their own metadata by the reader of
// SimpleSAMLphp. What the test says ("sp") is set on top, as an administrator
// would; without it nothing but their metadata counts.
$dir = getenv('GROUPGATE_SAML_DIR');
$told = json_decode(file_get_contents("$dir/told.json"), true, 512, JSON_THROW_ON_ERROR);
foreach (glob("$dir/sp/*.xml") as $file) {
    foreach (SimpleSAML\Metadata\SAMLParser::parseDescriptorsFile($file) as $id => $entity) {
        $found = $entity->getMetadata20SP();
        if ($found !== null) {
            unset($found['entityDescriptor'], $found['expire']);
            $metadata[$id] = array_replace($found, $told['sp'] ?? []);
        }
    }
}
